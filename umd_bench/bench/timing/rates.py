"""Rates of work in one process: warm-up, repeats long enough to time, the median and how far the repeats lie apart.

Several kinds of work are timed in turn within each repeat, so that a machine that is slower for a while is slower for all of
them, and their ratio stays what it is. On one thread of a CPU the time that the work itself computed is taken as well (and that
of processes which it waited for): others at work lengthen the clock's time by taking turns, this one only by what they share.
"""

from __future__ import annotations

import math
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

REPEAT_SECONDS = 0.25  # a repeat lasts at least about this long
_FIRST_SECONDS = 1.0  # a first call that takes longer is believed

Work = Callable[[], int]  # does a piece of the work; how many images it was


@dataclass(frozen=True)
class Rate:
    """Images a second: the median over the repeats, the slowest and the fastest of them; ``calls`` pieces made a repeat.

    ``computed`` is images a second of CPU time, empty where that says nothing: on a GPU, and on several threads, of which some
    wait for others in a loop that counts as computing.
    """

    median: float
    slowest: float
    fastest: float
    repeats: int
    calls: int
    each: tuple[float, ...] = field(default=(), repr=False, compare=False)  # one a repeat, in their order
    computed: tuple[float, ...] = field(default=(), repr=False, compare=False)  # the same


@dataclass(frozen=True)
class Ratio:
    """How many times as fast one kind of work was: the median over the repeats, each of which timed both, and its range.

    ``computed`` is the median by CPU time, None where one of the two has none.
    """

    median: float
    smallest: float
    largest: float
    computed: float | None = None

    def scaled(self, factor: float) -> Ratio:
        """All of it times ``factor``."""
        computed = None if self.computed is None else self.computed * factor
        return Ratio(self.median * factor, self.smallest * factor, self.largest * factor, computed)


def ratio(rate: Rate, baseline: Rate) -> Ratio:
    """``rate`` over ``baseline``, both of one :func:`measure`: repeat by repeat, so what slowed the machine down cancels."""
    each = [a / b for a, b in zip(rate.each, baseline.each, strict=True)]
    computed = [a / b for a, b in zip(rate.computed, baseline.computed, strict=False)]
    return Ratio(statistics.median(each), min(each), max(each), statistics.median(computed) if computed else None)


def measure(
    works: Mapping[str, Work],
    *,
    repeats: int,
    device: torch.device,
    warm_up: bool = True,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Rate]:
    """The rate of each kind of work on ``device``, the kinds in turn, after a warm-up of each as long as a repeat.

    Without ``warm_up``, for work that is slow or needs none, a repeat is so many calls as the time of one or two calls says.
    ``threads`` that the work computes on are torch's where left out; on one, CPU time is taken too.
    """
    calls = {}
    for name, work in works.items():
        if not warm_up:
            progress(f"first call: {name}")
            taken_alone = _seconds(work, 1, device).wall
            if taken_alone < _FIRST_SECONDS:  # it may have been what a first call loads, and the work itself far quicker
                taken_alone = min(taken_alone, _seconds(work, 1, device).wall)
            calls[name] = max(1, math.ceil(REPEAT_SECONDS / max(1e-6, taken_alone)))
            continue
        progress(f"warming up: {name}")
        work()
        calls[name], spent = 0, 0.0
        while spent < REPEAT_SECONDS:
            spent += _seconds(work, 1, device).wall
            calls[name] += 1
    alone = device.type == "cpu" and (threads or torch.get_num_threads()) == 1
    taken: dict[str, list[_Taken]] = {name: [] for name in works}
    for repeat in range(repeats):
        for name, work in works.items():
            progress(f"repeat {repeat + 1} of {repeats}: {name}")
            taken[name].append(_seconds(work, calls[name], device))
    rates = {}
    for name, repeated in taken.items():
        each = tuple(one.images / one.wall for one in repeated)
        counted = alone and all(one.computed > 0 for one in repeated)
        computed = tuple(one.images / one.computed for one in repeated) if counted else ()
        rates[name] = Rate(statistics.median(each), min(each), max(each), repeats, calls[name], each, computed)
    return rates


class _Taken(NamedTuple):
    """Seconds by the clock and of CPU time, and the images that they were for."""

    wall: float
    computed: float
    images: int


def _seconds(work: Work, calls: int, device: torch.device) -> _Taken:
    """What so many calls take, all that was queued on the device included."""
    _wait(device)
    started, computed = time.perf_counter(), _computed()
    images = sum(work() for _ in range(calls))
    _wait(device)
    return _Taken(time.perf_counter() - started, _computed() - computed, images)


def _computed() -> float:
    """Seconds of CPU time of this process and of the processes that it has waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
