"""Rates of work in one process: warm-up, repeats long enough to time, the median and how far the repeats lie apart.

Several kinds of work are timed in turn within each repeat, so that a machine that is slower for a while is slower for all of
them, and their ratio stays what it is.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch

REPEAT_SECONDS = 0.25  # a repeat lasts at least about this long

Work = Callable[[], int]  # does a piece of the work; how many images it was


@dataclass(frozen=True)
class Rate:
    """Images a second: the median over the repeats, the slowest and the fastest of them; ``calls`` pieces made a repeat."""

    median: float
    slowest: float
    fastest: float
    repeats: int
    calls: int
    each: tuple[float, ...] = field(default=(), repr=False, compare=False)  # one a repeat, in their order


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one kind of work was: the median over the repeats, each of which timed both, and its range."""

    median: float
    smallest: float
    largest: float


def ratio(rate: Rate, baseline: Rate) -> Ratio:
    """``rate`` over ``baseline``, both of one :func:`measure`: repeat by repeat, so what slowed the machine down cancels."""
    each = [a / b for a, b in zip(rate.each, baseline.each, strict=True)]
    return Ratio(statistics.median(each), min(each), max(each))


def measure(
    works: Mapping[str, Work],
    *,
    repeats: int,
    device: torch.device,
    warm_up: bool = True,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Rate]:
    """The rate of each kind of work on ``device``, the kinds in turn, after a warm-up of each as long as a repeat.

    Without ``warm_up``, for work that has been called before or needs none, a repeat is so many calls as one call's time says.
    """
    calls = {}
    for name, work in works.items():
        if not warm_up:
            calls[name] = max(1, math.ceil(REPEAT_SECONDS / max(1e-6, _seconds(work, 1, device)[0])))
            continue
        progress(f"warming up: {name}")
        work()
        calls[name], spent = 0, 0.0
        while spent < REPEAT_SECONDS:
            spent += _seconds(work, 1, device)[0]
            calls[name] += 1
    rates: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats):
        for name, work in works.items():
            progress(f"repeat {repeat + 1} of {repeats}: {name}")
            seconds, images = _seconds(work, calls[name], device)
            rates[name].append(images / seconds)
    return {
        name: Rate(statistics.median(found), min(found), max(found), repeats, calls[name], tuple(found))
        for name, found in rates.items()
    }


def _seconds(work: Work, calls: int, device: torch.device) -> tuple[float, int]:
    """Seconds for so many calls, all that was queued on the device included, and the images they were."""
    _wait(device)
    started = time.perf_counter()
    images = sum(work() for _ in range(calls))
    _wait(device)
    return time.perf_counter() - started, images


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
