"""Times several works in turn, after a warm-up, and gives the median and the range of several repeats.

All works are timed once in each repeat, so a machine that is slow for a while is slow for all of them, and their ratio holds.
On one CPU thread the CPU time is measured too (child processes included), because other programs disturb it less. They lengthen
the wall time whenever they have the core, but the CPU time only through shared caches and memory.
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
_TRUSTED_SECONDS = 1.0  # a shorter first call is repeated, since most of its time may have been one-time loading

Work = Callable[[], int]  # does one piece of work and returns how many images (or other units) it processed


@dataclass(frozen=True)
class Throughput:
    """Images per second: the median, slowest and fastest of the repeats. Each repeat made ``calls`` calls.

    ``each`` has every repeat's images per second of wall time, ``computed`` its images per second of CPU time. ``computed`` is
    empty on a GPU, and on several threads, since CPU time then includes threads that wait for each other in a busy loop.
    """

    median: float
    slowest: float
    fastest: float
    repeats: int
    calls: int
    each: tuple[float, ...] = field(default=(), repr=False, compare=False)
    computed: tuple[float, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True)
class Ratio:
    """The speed of one work over the speed of another: the median and range of the ratios of single repeats.

    ``computed`` is the median ratio by CPU time; None if it was not measured for both.
    """

    median: float
    smallest: float
    largest: float
    computed: float | None = None

    def scaled(self, factor: float) -> Ratio:
        """The ratio times ``factor``."""
        computed = None if self.computed is None else self.computed * factor
        return Ratio(self.median * factor, self.smallest * factor, self.largest * factor, computed)


def ratio(rate: Throughput, baseline: Throughput) -> Ratio:
    """``rate`` over ``baseline``, repeat by repeat; both must come from one call of :func:`measure`."""
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
) -> dict[str, Throughput]:
    """The throughput of each work on ``device``, timed in turn.

    A warm-up of each work determines how many of its calls last :data:`REPEAT_SECONDS`. Without ``warm_up``, which is meant for
    slow work, one or two calls determine this number. ``threads`` is the work's number of threads (default: torch's). With 1
    thread on the CPU, CPU time is measured.
    """
    calls = {}
    for name, work in works.items():
        if not warm_up:
            progress(f"first call: {name}")
            seconds = _timed(work, 1, device).wall
            if seconds < _TRUSTED_SECONDS:
                seconds = min(seconds, _timed(work, 1, device).wall)
            calls[name] = max(1, math.ceil(REPEAT_SECONDS / max(1e-6, seconds)))
            continue
        progress(f"warming up: {name}")
        work()
        calls[name], spent = 0, 0.0
        while spent < REPEAT_SECONDS:
            spent += _timed(work, 1, device).wall
            calls[name] += 1
    one_thread = device.type == "cpu" and (threads or torch.get_num_threads()) == 1
    timed: dict[str, list[_Timed]] = {name: [] for name in works}
    for repeat in range(repeats):
        for name, work in works.items():
            progress(f"repeat {repeat + 1} of {repeats}: {name}")
            timed[name].append(_timed(work, calls[name], device))
    rates = {}
    for name, repeated in timed.items():
        each = tuple(repeat.images / repeat.wall for repeat in repeated)
        has_cpu_time = one_thread and all(repeat.cpu > 0 for repeat in repeated)
        computed = tuple(repeat.images / repeat.cpu for repeat in repeated) if has_cpu_time else ()
        rates[name] = Throughput(statistics.median(each), min(each), max(each), repeats, calls[name], each, computed)
    return rates


class _Timed(NamedTuple):
    """Seconds of wall time and of CPU time, and the number of images."""

    wall: float
    cpu: float
    images: int


def _timed(work: Work, calls: int, device: torch.device) -> _Timed:
    """Time ``calls`` calls, including the work that they queue on the device."""
    _synchronize(device)
    started, cpu = time.perf_counter(), _cpu_seconds()
    images = sum(work() for _ in range(calls))
    _synchronize(device)
    return _Timed(time.perf_counter() - started, _cpu_seconds() - cpu, images)


def _cpu_seconds() -> float:
    """CPU time of this process and of the child processes that it has waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
