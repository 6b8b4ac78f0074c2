"""The progress of a packing: on a terminal a bar with images per second and time left, elsewhere a line now and then."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from umd_bench.cli.console import console, print_line

if TYPE_CHECKING:
    from umd_bench.data.packs.writer import PackProgress

_LINE_EVERY_SECONDS = 30.0


class PackingProgress:
    """Shows the :class:`PackProgress` of one packing while its context lasts."""

    def __init__(self, name: str) -> None:
        self._name = name
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[pace]}")
        self._bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task(name, total=None, pace="reading the list of images", start=False)
        self._started: float | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> PackingProgress:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._bar.stop()
        if kind is KeyboardInterrupt:
            self.line("interrupted: the same command continues after the last finished shard")

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        print_line(f"{self._name}: {text}", on=self._bar.console)

    def update(self, progress: PackProgress) -> None:
        """Show how far the packing is. The pace counts only the images that this process packs."""
        now = time.monotonic()
        if self._started is None:
            self._started = now
            if progress.resumed:
                self.line(f"{progress.resumed:,} of {progress.total:,} images are there from an earlier packing")
        pace = _pace(progress, now - self._started)
        self._bar.update(self._task, total=progress.total, completed=progress.done, pace=pace)
        if not console.is_terminal and now - self._last_line > _LINE_EVERY_SECONDS:
            self._last_line = now
            self.line(f"{progress.done:,} of {progress.total:,} images, {pace}")


def _pace(progress: PackProgress, seconds: float) -> str:
    rate = (progress.done - progress.resumed) / seconds if seconds > 0 else 0.0
    left = _duration((progress.total - progress.done) / rate) if rate > 0 else "unknown"
    skipped = f", {progress.skipped:,} left out" if progress.skipped else ""
    return f"{rate:,.0f} images/s, {left} left{skipped}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
