"""Times a function of this package ("ours") in turn with an independent one ("theirs"), and compares their values."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from umd_bench.bench.tables import Table, format_ratio, number, spread
from umd_bench.bench.timing.machine import Machine
from umd_bench.bench.timing.throughput import Ratio, Throughput, measure, ratio


@dataclass(frozen=True)
class Pair:
    """Two functions that compute the same numbers, and how many units (images, distances, runs) one call computes.

    ``library`` names the library that ``theirs`` uses.
    """

    what: str
    library: str
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    units: int = 1


@dataclass(frozen=True)
class ComparedPair:
    """A timed pair: units per second of both functions, and the largest difference of their values, relative to the
    largest value of ``theirs``."""

    what: str
    library: str
    ours: Throughput
    theirs: Throughput
    difference: float

    @property
    def speedup(self) -> Ratio:
        """The speed of ours over the speed of theirs."""
        return ratio(self.ours, self.theirs)


@dataclass(frozen=True)
class ComparisonResult:
    """All pairs of one benchmark. ``alone`` holds the rates of functions that are compared with nothing."""

    machine: Machine
    title: str
    unit: str
    pairs: tuple[ComparedPair, ...]
    alone: dict[str, Throughput]

    def tables(self) -> list[Table]:
        """One row per pair, and a second table for the rates in ``alone``."""
        header = ("what", f"{self.unit}/s (range)", "theirs (range)", "times as fast", "difference", "theirs is")
        rows = tuple(
            (
                pair.what,
                spread(pair.ours),
                spread(pair.theirs),
                format_ratio(pair.speedup),
                f"{pair.difference:.0e}",
                pair.library,
            )
            for pair in self.pairs
        )
        tables = [Table(self.title, header, rows)] if rows else []
        if self.alone:
            shown = tuple((name, spread(rate)) for name, rate in self.alone.items())
            tables.append(Table(f"{self.title}: rates without comparison", ("what", "a second (range)"), shown))
        return tables

    def remarks(self) -> list[str]:
        """The pairs in which ours is slower, if there are any."""
        slower = [f"{pair.what} ({number(pair.speedup.median)}x)" for pair in self.pairs if pair.speedup.median < 1]
        return [f"Slower than the independent way: {', '.join(slower)}."] if slower else []

    def as_json(self) -> dict[str, Any]:
        """All numbers and ratios as plain values."""
        return {**asdict(self), "times": {pair.what: asdict(pair.speedup) for pair in self.pairs}}


def compare(
    pairs: list[Pair], *, repeats: int, device: torch.device, warm_up: bool, progress: Callable[[str], None]
) -> tuple[ComparedPair, ...]:
    """Time the two ways of each pair in turn, and compare the values of their last calls."""
    compared = []
    for pair in pairs:
        values: dict[str, Any] = {}
        works = {
            "ours": _keeping_value(pair.ours, pair.units, values, "ours"),
            "theirs": _keeping_value(pair.theirs, pair.units, values, "theirs"),
        }
        rates = measure(
            works,
            repeats=repeats,
            device=device,
            warm_up=warm_up,
            progress=lambda step, what=pair.what: progress(f"{what}: {step}"),  # type: ignore[misc]
        )
        difference = relative_difference(values["ours"], values["theirs"])
        compared.append(ComparedPair(pair.what, pair.library, rates["ours"], rates["theirs"], difference))
    return tuple(compared)


def relative_difference(ours: Any, theirs: Any) -> float:
    """``max |ours - theirs| / max |theirs|`` of two arrays or numbers. Raises :class:`ValueError` if their shapes differ."""
    a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (ours, theirs))
    if a.shape != b.shape:
        raise ValueError(f"the values of a pair have the shapes {list(a.shape)} and {list(b.shape)}")
    return float((a - b).abs().max() / b.abs().max())


def _keeping_value(call: Callable[[], Any], units: int, values: dict[str, Any], name: str) -> Callable[[], int]:
    """``call`` as a work that stores its last value in ``values``, because one more call just for the value could be slow."""

    def work() -> int:
        values[name] = call()
        return units

    return work
