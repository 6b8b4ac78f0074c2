"""How long compiling takes, and after how many images the faster step has saved as much time."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from umd_bench.bench.tables import Table, number
from umd_bench.bench.timing.throughput import Throughput, Work, ratio
from umd_bench.engine.training.compiling import cache_in, own_graphs


@dataclass(frozen=True)
class Compiling:
    """The time that compiling a work takes, in seconds: its first call minus its second.

    ``cold`` is the time with an empty cache; ``kept`` is the time with the cache on disk that the cold run has filled. After
    ``images`` images the compiled work has saved as much time as ``cold``, and after ``images_kept`` as much as ``kept``. Both
    numbers are None if the compiled work is not faster.
    """

    of: str  # the name of the same work, not compiled
    cold: float
    kept: float
    images: int | None = None
    images_kept: int | None = None

    def with_images(self, compiled: Throughput, plain: Throughput) -> Compiling:
        """A copy with the numbers of images, from the ratio of both throughputs (by CPU time if it is known)."""
        times = ratio(compiled, plain)
        factor = times.computed or times.median
        saved = (1 - 1 / factor) / plain.median  # seconds per image
        images, kept = (round(seconds / saved) if saved > 0 else None for seconds in (self.cold, self.kept))
        return Compiling(self.of, self.cold, self.kept, images, kept)


@contextmanager
def empty_compile_cache() -> Iterator[None]:
    """Compile into an empty temporary cache. At the end discard the cache and the graphs of this process."""
    with tempfile.TemporaryDirectory(prefix="umd-bench-compiled-") as folder, cache_in(Path(folder)), own_graphs():
        yield


def compile_all(
    builds: Mapping[str, tuple[str, Callable[[], Work]]], device: torch.device, progress: Callable[[str], None]
) -> tuple[dict[str, Work], dict[str, Compiling]]:
    """Compile each work with an empty cache, then again from the filled cache; returns the compiled works and the times.

    ``builds`` maps the name of a compiled work to the name of the same work not compiled, and a function that builds the
    compiled one. Call this within :func:`empty_compile_cache`. The first work's time includes the start of the compiler.
    """
    cold = {}
    for name, (_, build) in builds.items():
        progress(f"compiling: {name}")
        cold[name] = _compile_seconds(build(), device)
    torch.compiler.reset()  # once for all works, since it discards every compiled graph
    works, compiling = {}, {}
    for name, (plain, build) in builds.items():
        progress(f"compiling again, from disk: {name}")
        works[name] = build()
        compiling[name] = Compiling(plain, cold[name], _compile_seconds(works[name], device))
    return works, compiling


def compile_table(compiling: Mapping[str, Compiling]) -> Table:
    """One row per compiled work."""
    header = ("compiled", "s, empty cache", "s, from cache", "images until it pays", "images, from cache")
    rows = tuple(
        (name, number(one.cold), number(one.kept), _count(one.images), _count(one.images_kept))
        for name, one in compiling.items()
    )
    return Table("Compiling", header, rows)


def compile_remarks(compiling: Mapping[str, Compiling]) -> list[str]:
    """One sentence per compiled work: whether compiling pays."""
    return [
        f"{name}: compiling takes {number(one.cold)} s and pays after {one.images:,} images ({one.images_kept:,} with a filled "
        f"cache), compared with {one.of}."
        if one.images is not None
        else f"{name}: not faster than {one.of}, so compiling never pays."
        for name, one in compiling.items()
    ]


def _count(images: int | None) -> str:
    return "never" if images is None else f"{images:,}"


def _compile_seconds(work: Work, device: torch.device) -> float:
    """The seconds of the first call minus the seconds of the second."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return max(0.0, seconds[0] - seconds[1])
