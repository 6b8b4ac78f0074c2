"""Every test runs on one thread; packs and compiled code are in a folder of the test session, which its workers share."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

_FOLDER = pytest.StashKey[str]()

# A busy machine is slow to make examples, which says nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(1)
    os.fsync = lambda _: None  # no test cuts the power, and waiting for the disk takes a tenth of the time
    if not hasattr(config, "workerinput"):  # an xdist worker inherits the variable from the process that started it
        config.stash[_FOLDER] = os.environ["UMD_BENCH_DATA"] = tempfile.mkdtemp(prefix="umd-bench-tests-")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(config.stash[_FOLDER]) / "compiled")


def pytest_unconfigure(config: pytest.Config) -> None:
    if _FOLDER in config.stash:
        shutil.rmtree(config.stash[_FOLDER], ignore_errors=True)


@pytest.fixture
def no_weights_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this machine's own weights of extractors."""
    for name in ("UMD_BENCH_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    monkeypatch.delenv("UMD_BENCH_INCEPTION", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
