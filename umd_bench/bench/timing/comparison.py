"""Findings that are pairs: our way to a number and an independent way to the same number, timed in turn in one run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from umd_bench.bench.tables import Table, number, spread, times
from umd_bench.bench.timing.machine import Machine
from umd_bench.bench.timing.rates import Rate, Ratio, measure, ratio


@dataclass(frozen=True)
class Pair:
    """What is computed, two ways to it, and how many units (images, distances) one call of either makes.

    Each way gives its value as numbers, so that the run also says how far apart they are.
    """

    what: str
    library: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    units: int = 1


@dataclass(frozen=True)
class Compared:
    """One pair as measured; rates in units a second, ``difference`` relative to the largest number of theirs."""

    what: str
    library: str
    ours: Rate
    theirs: Rate
    difference: float

    @property
    def times(self) -> Ratio:
        """How many times as fast ours is."""
        return ratio(self.ours, self.theirs)


@dataclass(frozen=True)
class Comparisons:
    """All pairs of one benchmark; ``alone`` are rates that nothing stands beside."""

    machine: Machine
    title: str
    unit: str
    pairs: tuple[Compared, ...]
    alone: dict[str, Rate]

    def tables(self) -> list[Table]:
        """A row a pair, and one more table for what stands alone."""
        header = ("what", f"{self.unit}/s (range)", "theirs (range)", "times as fast", "difference", "theirs is")
        rows = tuple(
            (pair.what, spread(pair.ours), spread(pair.theirs), times(pair.times), f"{pair.difference:.0e}", pair.library)
            for pair in self.pairs
        )
        found = [Table(self.title, header, rows)] if rows else []
        if self.alone:
            shown = tuple((name, spread(rate)) for name, rate in self.alone.items())
            found.append(Table(f"{self.title}: rates alone", ("what", "a second (range)"), shown))
        return found

    def remarks(self) -> list[str]:
        """The pairs in which ours is the slower one, if there are any."""
        slower = [f"{pair.what} ({number(pair.times.median)}x)" for pair in self.pairs if pair.times.median < 1]
        return [f"Slower than the other way: {', '.join(slower)}."] if slower else []

    def as_json(self) -> dict[str, Any]:
        """Plain values, the ratios among them."""
        return {**asdict(self), "times": {pair.what: asdict(pair.times) for pair in self.pairs}}


def compare(
    pairs: list[Pair], *, repeats: int, device: torch.device, warm_up: bool, progress: Callable[[str], None]
) -> tuple[Compared, ...]:
    """Time each pair in turn; the values of the last calls are compared."""
    found = []
    for pair in pairs:
        values: dict[str, Any] = {}
        works = {
            "ours": _kept(pair.ours, pair.units, values, "ours"),
            "theirs": _kept(pair.theirs, pair.units, values, "theirs"),
        }
        rates = measure(
            works,
            repeats=repeats,
            device=device,
            warm_up=warm_up,
            progress=lambda word, what=pair.what: progress(f"{what}: {word}"),  # type: ignore[misc]
        )
        difference = relative(values["ours"], values["theirs"])
        found.append(Compared(pair.what, pair.library, rates["ours"], rates["theirs"], difference))
    return tuple(found)


def relative(ours: Any, theirs: Any) -> float:
    """The largest difference of two arrays or numbers of one shape, of the largest number of the second."""
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (ours, theirs))
    if a.shape != b.shape:
        raise ValueError(f"two ways to one thing give {list(a.shape)} and {list(b.shape)}")
    return float((a - b).abs().max() / b.abs().max())


def _kept(call: Callable[[], Any], units: int, values: dict[str, Any], name: str) -> Callable[[], int]:
    """A work whose last value is kept: the slowest of these calls take so long that none is made for its value alone."""

    def work() -> int:
        values[name] = call()
        return units

    return work
