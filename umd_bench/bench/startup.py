"""How long a command takes to begin: whole processes, timed from outside, in turn with a Python that does nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from umd_bench.bench.machine import Machine
from umd_bench.bench.rates import Rate, Ratio, Work, measure, ratio
from umd_bench.bench.tables import Table, number, times

BARE = "python -c pass"
_CLI = "from umd_bench.cli import main; main()"
COMMANDS: dict[str, list[str]] = {
    BARE: ["-c", "pass"],
    "umd-bench --help": ["-c", _CLI, "--help"],
    "umd-bench sweep --help": ["-c", _CLI, "sweep", "--help"],
    "import torch": ["-c", "import torch"],
    "import umd_bench.engine.loop": ["-c", "import umd_bench.engine.loop"],
    "import umd_bench.orchestration.worker": ["-c", "import umd_bench.orchestration.worker"],
}
_SECONDS = 120  # a process that takes longer is an error


@dataclass(frozen=True)
class StartupFinding:
    """Processes a second of each command; ``notes`` are further rows, name and value."""

    machine: Machine
    rates: dict[str, Rate]
    notes: dict[str, float]  # milliseconds

    def over_bare(self, name: str) -> Ratio:
        """How many times as long as a Python that does nothing."""
        return ratio(self.rates[BARE], self.rates[name])

    def tables(self) -> list[Table]:
        """A row for each command, and one for each note."""
        rows = tuple(
            (name, number(1e3 / rate.median), "-" if name == BARE else times(self.over_bare(name)))
            for name, rate in self.rates.items()
        )
        found = [Table("Start-up of a process", ("command", "ms (median)", "times a bare Python"), rows)]
        if self.notes:
            notes = tuple((name, number(value)) for name, value in self.notes.items())
            found.append(Table("Runner", ("what", "ms"), notes))
        return found

    def remarks(self) -> list[str]:
        """None: the tables say it."""
        return []

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "over_bare": {name: asdict(self.over_bare(name)) for name in self.rates}}


def bench_startup(
    *,
    machine: Machine,
    repeats: int,
    notes: dict[str, float],
    commands: dict[str, list[str]] = COMMANDS,
    progress: Callable[[str], None] = lambda _: None,
) -> StartupFinding:
    """Time each command, once a repeat; a command that fails raises :class:`subprocess.CalledProcessError`."""
    works = {name: _process([sys.executable, *arguments]) for name, arguments in commands.items()}
    rates = measure(works, repeats=repeats, device=torch.device("cpu"), warm_up=False, progress=progress)
    return StartupFinding(machine, rates, notes)


def _process(command: list[str]) -> Work:
    def run() -> int:
        subprocess.run(command, check=True, capture_output=True, timeout=_SECONDS)
        return 1

    return run
