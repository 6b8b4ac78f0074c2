"""How long commands take to start. Whole processes are timed, in turn with a Python that does nothing."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from umd_bench.bench.synthetic import one_stage_sweep
from umd_bench.bench.tables import Table, format_ratio, number
from umd_bench.bench.timing.machine import Machine
from umd_bench.bench.timing.throughput import Ratio, Throughput, Work, measure, ratio
from umd_bench.orchestration.commands import running_process

BARE, HELP = "python -c pass", "umd-bench --help"
_CLI = "from umd_bench.cli import main; main()"
COMMANDS: dict[str, list[str]] = {
    BARE: ["-c", "pass"],
    HELP: ["-c", _CLI, "--help"],
    "umd-bench sweep --help": ["-c", _CLI, "sweep", "--help"],
    "import torch": ["-c", "import torch"],
    "import umd_bench.engine.training.loop": ["-c", "import umd_bench.engine.training.loop"],
    "import umd_bench.orchestration.stage_process.run_stage": ["-c", "import umd_bench.orchestration.stage_process.run_stage"],
}
HELP_LIMIT = 300.0  # milliseconds of CPU time
_TIMEOUT_SECONDS = 120  # of one process
_POLL_SECONDS = 0.01  # between two checks whether a stage has begun


@dataclass(frozen=True)
class SweepTime:
    """How long one part of running a sweep takes, in milliseconds, and the ``limit`` for this time (None: no limit)."""

    what: str
    milliseconds: float
    limit: float | None = None


@dataclass(frozen=True)
class StartupResult:
    """How many processes of each command run per second, and how long parts of running a sweep take."""

    machine: Machine
    rates: dict[str, Throughput]
    sweep_times: tuple[SweepTime, ...]

    def over_bare(self, name: str) -> Ratio:
        """The time of a command over the time of a Python that does nothing."""
        return ratio(self.rates[BARE], self.rates[name])

    @property
    def limited(self) -> list[SweepTime]:
        """The times that have a limit, the CPU time of ``umd-bench --help`` first if it was measured."""
        entries = [entry for entry in self.sweep_times if entry.limit is not None]
        if HELP in self.rates:
            entries.insert(0, SweepTime(f"{HELP} (CPU time)", _cpu_milliseconds(self.rates[HELP]), HELP_LIMIT))
        return entries

    def tables(self) -> list[Table]:
        """One row per command, and a second table of the times of sweeps."""
        rows = tuple(
            (
                name,
                number(1e3 / rate.median),
                number(_cpu_milliseconds(rate)),
                "-" if name == BARE else format_ratio(self.over_bare(name)),
            )
            for name, rate in self.rates.items()
        )
        header = ("command", "ms (median)", "ms of CPU time", "times a bare Python")
        tables = [Table("Start-up of a process", header, rows)]
        if self.sweep_times:
            entries = tuple((entry.what, number(entry.milliseconds), number(entry.limit)) for entry in self.sweep_times)
            tables.append(Table("Running sweeps", ("what", "ms", "limit, ms"), entries))
        return tables

    def remarks(self) -> list[str]:
        """The times that exceed their limit, if there are any."""
        over = [
            f"{entry.what} ({number(entry.milliseconds)} ms)"
            for entry in self.limited
            if entry.limit is not None and entry.milliseconds > entry.limit
        ]
        return [f"Over the limit: {', '.join(over)}."] if over else []

    def as_json(self) -> dict[str, Any]:
        """All numbers as plain values."""
        notes = [{"what": entry.what, "milliseconds": entry.milliseconds, "aim": entry.limit} for entry in self.sweep_times]
        return {
            "machine": asdict(self.machine),
            "rates": {name: asdict(rate) for name, rate in self.rates.items()},
            "notes": notes,
            "over_bare": {name: asdict(self.over_bare(name)) for name in self.rates},
        }


def bench_startup(
    *,
    machine: Machine,
    repeats: int,
    sweep_times: tuple[SweepTime, ...] = (),
    commands: dict[str, list[str]] = COMMANDS,
    progress: Callable[[str], None] = lambda _: None,
) -> StartupResult:
    """Time each command once per repeat. Raises :class:`subprocess.CalledProcessError` if a command fails."""
    works = {name: _process([sys.executable, *arguments]) for name, arguments in commands.items()}
    rates = measure(works, repeats=repeats, device=torch.device("cpu"), warm_up=False, threads=1, progress=progress)
    return StartupResult(machine, rates, sweep_times)


def until_first_stage(folder: Path, data_root: Path, *, executor: str = "ray", seconds: float = _TIMEOUT_SECONDS) -> float:
    """Run `umd-bench sweep` in ``folder`` to its end; returns the seconds until its first stage ran.

    Raises :class:`RuntimeError`, with the output, if the sweep fails, runs no stage or takes longer than ``seconds``.
    """
    results, log = folder / "results", folder / "log"
    options = {"--on": executor, "--workers": "1", "--results": results, "--data-root": data_root, "--mlflow": "off"}
    arguments = [str(value) for option in options.items() for value in option]
    command = [sys.executable, "-c", _CLI, "sweep", str(one_stage_sweep(folder)), *arguments]
    begun: float | None = None
    started = time.perf_counter()
    with log.open("wb") as output, running_process(command, stdout=output, stderr=subprocess.STDOUT) as process:
        while process.poll() is None and time.perf_counter() - started < seconds:
            if begun is None and any(results.glob("stages/*/attempt-*/events.jsonl")):
                begun = time.perf_counter() - started
            time.sleep(_POLL_SECONDS)
    if begun is None or process.returncode != 0:
        raise RuntimeError(f"a sweep of one stage on {executor} failed: {log.read_text(errors='replace')[-2000:]}")
    return begun


def _cpu_milliseconds(rate: Throughput) -> float:
    """The median CPU time of one process."""
    return 1e3 / statistics.median(rate.computed)


def _process(command: list[str]) -> Work:
    def run() -> int:
        subprocess.run(command, check=True, capture_output=True, timeout=_TIMEOUT_SECONDS)
        return 1

    return run
