"""A real Slurm for the test session. Without one, the tests that need it are skipped, or fail if REQUIRE_SLURM is set."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.lab import Lab
from cluster.minislurm import MiniSlurm, why_unavailable

TESTS = Path(__file__).parents[1]
HIDDEN = ("SLURM_", "SBATCH_", "SRUN_", "SUBMITIT_")
ARRAY = 33  # a small limit, so that a few dozen stages need more than one array


@pytest.fixture(scope="session")
def slurm_session() -> Iterator[MiniSlurm]:
    reason = why_unavailable()
    if reason is not None:
        if os.environ.get("REQUIRE_SLURM"):
            pytest.fail(f"REQUIRE_SLURM is set, but there is no Slurm: {reason}")
        warnings.warn(f"NO SLURM: the tests on a real Slurm are skipped: {reason}", stacklevel=1)
        pytest.skip(reason)
    root = Path(tempfile.mkdtemp(prefix="ms"))
    before = dict(os.environ)
    try:
        for name in [name for name in os.environ if name.startswith(HIDDEN)]:
            del os.environ[name]
        with MiniSlurm(root, array=ARRAY) as cluster:
            os.environ.update(cluster.environment)
            yield cluster
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def slurm(slurm_session: MiniSlurm) -> Iterator[MiniSlurm]:
    """The cluster, without jobs."""
    yield slurm_session
    slurm_session.reset()


@pytest.fixture
def lab(slurm: MiniSlurm, tmp_path: Path) -> Iterator[Lab]:
    """A lab on the Slurm cluster."""
    made = Lab("slurm", tmp_path)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let jobs and actors import the scripted stages from the tests' folder."""
    monkeypatch.setenv("PYTHONPATH", str(TESTS))
