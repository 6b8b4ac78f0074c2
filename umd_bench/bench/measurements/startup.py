"""How long a command takes to begin: whole processes, timed from outside, in turn with a Python that does nothing."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from umd_bench.bench.tables import Table, number, times
from umd_bench.bench.timing.folders import made_up_small_sweep
from umd_bench.bench.timing.machine import Machine
from umd_bench.bench.timing.rates import Rate, Ratio, Work, measure, ratio

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
HELP_AIM = 300.0  # milliseconds of CPU time
_SECONDS = 120  # a process that takes longer is an error
_LOOK = 0.01  # seconds between two looks for a stage that has begun


@dataclass(frozen=True)
class Note:
    """A time beside those of the commands: milliseconds, and the most that it should be."""

    what: str
    milliseconds: float
    aim: float | None = None


@dataclass(frozen=True)
class StartupFinding:
    """Processes a second of each command, and times of the runner."""

    machine: Machine
    rates: dict[str, Rate]
    notes: tuple[Note, ...]

    def over_bare(self, name: str) -> Ratio:
        """How many times as long as a Python that does nothing."""
        return ratio(self.rates[BARE], self.rates[name])

    @property
    def held(self) -> list[Note]:
        """What has an aim: the notes', and the help by its CPU time."""
        found = [note for note in self.notes if note.aim is not None]
        if HELP in self.rates:
            found.insert(0, Note(f"{HELP} (CPU time)", _computed(self.rates[HELP]), HELP_AIM))
        return found

    def tables(self) -> list[Table]:
        """A row for each command, and one for each note."""
        rows = tuple(
            (name, number(1e3 / rate.median), number(_computed(rate)), "-" if name == BARE else times(self.over_bare(name)))
            for name, rate in self.rates.items()
        )
        header = ("command", "ms (median)", "ms of CPU time", "times a bare Python")
        found = [Table("Start-up of a process", header, rows)]
        if self.notes:
            notes = tuple((note.what, number(note.milliseconds), number(note.aim)) for note in self.notes)
            found.append(Table("Runner", ("what", "ms", "aim: at most"), notes))
        return found

    def remarks(self) -> list[str]:
        """Which aims are missed, if any."""
        missed = [f"{n.what} ({number(n.milliseconds)} ms)" for n in self.held if n.aim is not None and n.milliseconds > n.aim]
        return [f"Above what was aimed at: {', '.join(missed)}."] if missed else []

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "over_bare": {name: asdict(self.over_bare(name)) for name in self.rates}}


def bench_startup(
    *,
    machine: Machine,
    repeats: int,
    notes: tuple[Note, ...] = (),
    commands: dict[str, list[str]] = COMMANDS,
    progress: Callable[[str], None] = lambda _: None,
) -> StartupFinding:
    """Time each command, once a repeat; a command that fails raises :class:`subprocess.CalledProcessError`."""
    works = {name: _process([sys.executable, *arguments]) for name, arguments in commands.items()}
    rates = measure(works, repeats=repeats, device=torch.device("cpu"), warm_up=False, threads=1, progress=progress)
    return StartupFinding(machine, rates, notes)


def until_first_stage(folder: Path, data_root: Path, *, executor: str = "ray", seconds: float = _SECONDS) -> float:
    """Seconds from the start of a process `umd-bench sweep` in ``folder`` until its first stage runs; then it is let end.

    Raises :class:`RuntimeError`, with what it printed, for a process that ends before or lasts longer than ``seconds``.
    """
    results, log = folder / "results", folder / "log"
    options = {"--on": executor, "--workers": "1", "--results": results, "--data-root": data_root, "--mlflow": "off"}
    words = [str(word) for option in options.items() for word in option]
    command = [sys.executable, "-c", _CLI, "sweep", str(made_up_small_sweep(folder)), *words]
    begun: float | None = None
    with log.open("wb") as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            while process.poll() is None and time.perf_counter() - started < seconds:
                if begun is None and any(results.glob("stages/*/attempt-*/events.jsonl")):
                    begun = time.perf_counter() - started
                time.sleep(_LOOK)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if begun is None or process.returncode != 0:
        raise RuntimeError(f"a sweep of one stage on {executor} did not end: {log.read_text(errors='replace')[-2000:]}")
    return begun


def _computed(rate: Rate) -> float:
    """Milliseconds of CPU time: the median."""
    return 1e3 / statistics.median(rate.computed)


def _process(command: list[str]) -> Work:
    def run() -> int:
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
        return 1

    return run
