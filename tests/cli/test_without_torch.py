"""Commands answer quickly: nothing before the first stage imports torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from orchestration.small import write_small

from umd_bench.data.packs.manifest import data_root

_WITHOUT_TORCH = "import sys; sys.modules['torch'] = None; from umd_bench.cli import main; main()"


def without_torch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run umd-bench in a process that cannot import torch."""
    return subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, *arguments], capture_output=True, text=True, timeout=60, cwd=folder, check=False
    )


@pytest.mark.parametrize(
    "arguments", [["--help"], ["sweep", "--help"], ["status"], ["schema", "sweep"], ["data", "list"], ["tier", "list"]]
)
def test_verbs_that_compute_nothing_import_no_torch(tmp_path: Path, arguments: list[str]) -> None:
    done = without_torch(tmp_path, *arguments)
    assert done.returncode == 0, done.stderr


def test_a_plan_and_its_checks_import_no_torch(tmp_path: Path) -> None:
    sweep = write_small(tmp_path)
    arguments = [str(sweep), "--data-root", str(data_root())]
    planned = without_torch(tmp_path, "plan", *arguments)
    assert planned.returncode == 0, planned.stderr
    assert "new" in planned.stdout
    refused = without_torch(tmp_path, "sweep", *arguments, "--set", "trial.stages.generate.steps=9999")
    assert (refused.returncode, refused.stderr.count("Traceback")) == (2, 0), refused.stderr
    assert "expected 1..1000" in refused.stderr
