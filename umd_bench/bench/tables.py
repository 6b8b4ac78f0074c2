"""The interface of a benchmark's result, and the plain tables in which the terminal and docs/performance.md show it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from umd_bench.bench.timing.machine import Machine
from umd_bench.bench.timing.throughput import Ratio, Throughput


@dataclass(frozen=True)
class Table:
    """A table whose cells are text. Its first column names the rows."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def markdown(self) -> str:
        """The table in Markdown, with its title above it."""
        lines = [f"**{self.title}**", "", _row(self.header), _row([":---", *["---:"] * (len(self.header) - 1)])]
        return "\n".join([*lines, *(_row(row) for row in self.rows)])


class BenchResult(Protocol):
    """The result of a benchmark."""

    @property
    def machine(self) -> Machine:
        """The machine that the benchmark ran on."""
        ...

    def tables(self) -> list[Table]:
        """The measured numbers."""
        ...

    def remarks(self) -> list[str]:
        """Conclusions from the tables, one sentence each."""
        ...

    def as_json(self) -> dict[str, Any]:
        """All numbers as plain values."""
        ...


def number(value: float | None) -> str:
    """Three significant digits: 1,230, 12.3, 0.0123; a dash for None."""
    if value is None:
        return "-"
    if not value or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{round(value, 2 - math.floor(math.log10(abs(value)))):,.{digits}f}"


def spread(rate: Throughput) -> str:
    """The median and, if there are several repeats, the slowest and the fastest."""
    return number(rate.median) + ("" if rate.repeats == 1 else f" ({number(rate.slowest)} to {number(rate.fastest)})")


def format_ratio(ratio: Ratio | None) -> str:
    """A ratio, with the smallest and largest of several repeats, and the ratio by CPU time if it is known."""
    if ratio is None:
        return "-"
    parts = [] if ratio.smallest == ratio.largest else [f"{number(ratio.smallest)} to {number(ratio.largest)}"]  # one repeat
    parts += [] if ratio.computed is None else [f"by CPU time {number(ratio.computed)}x"]
    return f"{number(ratio.median)}x" + (f" ({'; '.join(parts)})" if parts else "")


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
