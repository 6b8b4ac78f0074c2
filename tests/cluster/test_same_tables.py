"""The tables of a sweep are the same bytes on every executor."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from cluster.minislurm import MiniSlurm
from orchestration.small import write_small

pytestmark = pytest.mark.slow

OPTIONS = {
    "inline": [],
    "ray": ["--workers", "2"],
    "slurm": ["--slurm", "time=5m", "--slurm", "cpus=1"],
}
COMMAND = [sys.executable, "-c", "from umd_bench.cli import main; main()"]
TABLES = ("table.md", "table.csv", "long.csv", "table.tex", "table.html", "figure.png")
SECONDS = 200.0


def tables(folder: Path, on: str) -> dict[str, bytes]:
    """Run the small sweep with `umd-bench sweep` on one executor; returns the tables that it wrote."""
    command = [
        *COMMAND,
        *("sweep", str(write_small(folder)), "--set", "seeds=[0]", "--mlflow", "off"),
        *("--on", on, *OPTIONS[on], "--results", str(folder / on)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    written = folder / on / "sweeps" / "small"
    return {name: (written / name).read_bytes() for name in TABLES}


def test_inline_ray_and_slurm_give_tables_of_the_same_bytes(slurm: MiniSlurm, tmp_path: Path) -> None:
    found = {on: tables(tmp_path, on) for on in OPTIONS}
    assert found["inline"]["table.csv"].startswith(b"row,mask_ratio")
    for on in ("ray", "slurm"):
        assert found[on] == found["inline"], on
    assert slurm.jobs(), "nothing ran on Slurm"
