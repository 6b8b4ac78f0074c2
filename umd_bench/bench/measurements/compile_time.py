"""What compiling takes, and after how many images a faster step has earned it back."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from umd_bench.bench.tables import Table, number
from umd_bench.bench.timing.rates import Rate, Work, ratio
from umd_bench.engine.training.compiling import cache_in, own_graphs


@dataclass(frozen=True)
class Compiling:
    """Seconds by which a first call is longer than the next: with nothing kept (``cold``), and from what that left on disk.

    ``images`` is how many save as much time as compiling cold took, ``images_kept`` as it took from disk; None where nothing is
    saved.
    """

    of: str  # the same work, not compiled
    cold: float
    kept: float
    images: int | None = None
    images_kept: int | None = None

    def weighed(self, gained: Rate, plain: Rate) -> Compiling:
        """With the images told, from the rates of both: by CPU time where it is known."""
        times = ratio(gained, plain)
        factor = times.computed or times.median
        saved = (1 - 1 / factor) / plain.median  # seconds an image
        images, kept = (round(seconds / saved) if saved > 0 else None for seconds in (self.cold, self.kept))
        return Compiling(self.of, self.cold, self.kept, images, kept)


@contextmanager
def nothing_kept() -> Iterator[None]:
    """A folder of compiled work that begins empty and is gone afterwards, as is what this process compiled."""
    with tempfile.TemporaryDirectory(prefix="umd-bench-compiled-") as folder, cache_in(Path(folder)), own_graphs():
        yield


def compile_all(
    builds: Mapping[str, tuple[str, Callable[[], Work]]], device: torch.device, progress: Callable[[str], None]
) -> tuple[dict[str, Work], dict[str, Compiling]]:
    """Each named work, compiled, and how long that took; ``builds`` give it anew, beside the name of the same uncompiled.

    To be called within :func:`nothing_kept`. What the compiler itself takes to start is the first one's.
    """
    cold = {}
    for name, (_, build) in builds.items():
        progress(f"compiling: {name}")
        cold[name] = _first(build(), device)
    torch.compiler.reset()  # for all at once: it would forget those that are compiled already
    works, found = {}, {}
    for name, (plain, build) in builds.items():
        progress(f"compiling again, from disk: {name}")
        works[name] = build()
        found[name] = Compiling(plain, cold[name], _first(works[name], device))
    return works, found


def compile_table(found: Mapping[str, Compiling]) -> Table:
    """A row for each."""
    header = ("compiled", "s, nothing kept", "s, from disk", "images until earned back", "images, from disk")
    rows = tuple(
        (name, number(one.cold), number(one.kept), _count(one.images), _count(one.images_kept)) for name, one in found.items()
    )
    return Table("Compiling", header, rows)


def compile_remarks(found: Mapping[str, Compiling]) -> list[str]:
    """Whether it pays, a sentence for each."""
    return [
        f"{name}: the {number(one.cold)} s of compiling are earned back after {one.images:,} images ({one.images_kept:,} with "
        f"its work on disk) against {one.of}."
        if one.images is not None
        else f"{name}: not faster than {one.of}, so that compiling never pays."
        for name, one in found.items()
    ]


def _count(images: int | None) -> str:
    return "never" if images is None else f"{images:,}"


def _first(work: Work, device: torch.device) -> float:
    taken = []
    for _ in range(2):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - started)
    return max(0.0, taken[0] - taken[1])
