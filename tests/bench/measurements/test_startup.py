"""Start-up is compared with a bare Python, limits are checked, and if a sweep does not start, the error gives the reason."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch

from umd_bench.bench.measurements.startup import BARE, HELP, SweepTime, bench_startup, until_first_stage
from umd_bench.bench.timing.machine import machine_facts
from umd_bench.data.packs.manifest import data_root

CPU = torch.device("cpu")
MACHINE = machine_facts(CPU, None, "a processor")
pytestmark = pytest.mark.usefixtures("short_repeats")


@pytest.mark.slow
def test_start_up_is_compared_with_a_python_that_does_nothing() -> None:
    commands = {BARE: ["-c", "pass"], "more": ["-c", "import time; time.sleep(.2)"]}
    commands[HELP] = ["-c", "sum(range(30_000_000))"]
    sweep_times = (SweepTime("a stage", 3.0, limit=50.0), SweepTime("a sweep", 7.0, limit=6.0), SweepTime("anything", 9.0))
    result = bench_startup(machine=MACHINE, repeats=1, sweep_times=sweep_times, commands=commands)
    assert result.over_bare("more").median > 1
    assert [table.title for table in result.tables()] == ["Start-up of a process", "Running sweeps"]
    [remark] = result.remarks()
    assert "a sweep (7.00 ms)" in remark
    assert "a stage" not in remark
    assert "anything" not in remark
    assert result.limited[0].milliseconds > 50, "the CPU time of the child process counts"
    with pytest.raises(subprocess.CalledProcessError):
        bench_startup(machine=MACHINE, repeats=1, commands={BARE: ["-c", "raise SystemExit(3)"]})


@pytest.mark.slow
def test_a_sweep_starts_its_first_stage_within_two_minutes(tmp_path: Path) -> None:
    assert 0 < until_first_stage(tmp_path, data_root(), executor="inline") < 120


@pytest.mark.slow
def test_a_sweep_that_does_not_start_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-executor"):
        until_first_stage(tmp_path, tmp_path, executor="no-such-executor")
