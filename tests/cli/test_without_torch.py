"""Words are answered at once: nothing that is said before a stage runs waits for torch to be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from orchestration.small import write_small

from umd_bench.data.packs.manifest import data_root

_WITHOUT = "import sys; sys.modules['torch'] = None; from umd_bench.cli import main; main()"


def without_torch(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A verb in a process that cannot import torch."""
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT, *words], capture_output=True, text=True, timeout=60, cwd=folder, check=False
    )


@pytest.mark.parametrize("words", [["--help"], ["sweep", "--help"], ["status"], ["schema", "sweep"], ["data", "list"]])
def test_verbs_that_compute_nothing_import_no_torch(tmp_path: Path, words: list[str]) -> None:
    done = without_torch(tmp_path, *words)
    assert done.returncode == 0, done.stderr


def test_a_plan_and_its_checks_import_no_torch(tmp_path: Path) -> None:
    sweep = write_small(tmp_path)
    words = [str(sweep), "--data-root", str(data_root())]
    planned = without_torch(tmp_path, "plan", *words)
    assert planned.returncode == 0, planned.stderr
    assert "new" in planned.stdout
    refused = without_torch(tmp_path, "sweep", *words, "--set", "trial.stages.generate.steps=9999")
    assert (refused.returncode, refused.stderr.count("Traceback")) == (2, 0), refused.stderr
    assert "expected 1..1000" in refused.stderr
