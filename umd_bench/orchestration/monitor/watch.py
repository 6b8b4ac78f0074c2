"""Follows a sweep that another command or machine runs; it only reads the run directories."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from umd_bench.orchestration.graph import Node
from umd_bench.orchestration.monitor.live import PLAIN_LINE_SECONDS
from umd_bench.orchestration.monitor.stage_status import (
    StageStatus,
    StatusReader,
    first_names,
    stage_keys,
    wanted_statuses,
)
from umd_bench.orchestration.monitor.time_left import StageProgress, TimeLeft, clock, read_stage_progress
from umd_bench.store import Failure, RunDir, StageState, read_sweep

POLL_SECONDS = 1.0
MAX_RUNNING_ROWS, MAX_FAILURE_LINES = 16, 5


@dataclass(frozen=True)
class RunningStage:
    """A running stage, named by the first trial that uses it; ``seconds_left`` is None until it can be estimated."""

    trial: str
    stage: str
    progress: StageProgress
    seconds_left: float | None


@dataclass(frozen=True)
class SweepView:
    """A sweep at one moment. ``failures`` has one entry per cause: the name of its last stage, and that stage's failure."""

    sweep: str
    counts: Counter[StageState]
    running: tuple[RunningStage, ...]
    failures: tuple[tuple[str, Failure], ...]

    @property
    def complete(self) -> bool:
        """Whether every stage has its result."""
        return set(self.counts) == {StageState.DONE}

    @property
    def images_per_second(self) -> float:
        """The sum over all training stages that run."""
        return sum(stage.progress.images_per_second or 0 for stage in self.running)


class Watcher:
    """Reads one sweep again and again; a finished stage is read once."""

    def __init__(self, root: Path, sweep: str) -> None:
        """Raises :class:`UserError` for an unknown sweep."""
        self._root, self._sweep = root, sweep
        self._statuses, self._time_left = StatusReader(root), TimeLeft(root)
        self._nodes: dict[str, Node] = {}
        read_sweep(root, sweep)

    def view(self) -> SweepView:
        """The sweep now. Its record is read again each time, since another command may have added trials."""
        record = read_sweep(self._root, self._sweep)
        statuses = wanted_statuses(record, self._statuses.read(stage_keys(record)))
        names = first_names(record)
        running = [self._running(key, *names[key]) for key, status in statuses.items() if status.state is StageState.RUNNING]
        counts = Counter(status.state for status in statuses.values())
        return SweepView(record.name, counts, tuple(running), _failures_by_cause(statuses, names))

    def _running(self, key: str, trial: str, stage: str) -> RunningStage:
        if key not in self._nodes:
            self._nodes[key] = Node(RunDir(self._root, key).config(), stage, StageState.RUNNING)
        node = self._nodes[key]
        progress = read_stage_progress(self._root, node)
        return RunningStage(trial, stage, progress, self._time_left.of_stage(node, progress))


def watch(
    root: Path,
    sweep: str,
    console: Console,
    *,
    every_seconds: float = POLL_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the sweep until every stage has its result. Ctrl-C ends the display, not the sweep.

    On a terminal the view is redrawn in place. Elsewhere a line is printed every :data:`PLAIN_LINE_SECONDS` if it has changed.
    Raises :class:`UserError` for an unknown sweep.
    """
    watcher = Watcher(root, sweep)
    view, shown_at = watcher.view(), time.monotonic()
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while not view.complete:
                    live.update(Group(*_parts(view)), refresh=True)
                    sleep(every_seconds)
                    view = watcher.view()
        else:
            printed = summary(view)
            console.print(printed, highlight=False)
            while not view.complete:
                sleep(every_seconds)
                view = watcher.view()
                if time.monotonic() - shown_at >= PLAIN_LINE_SECONDS and summary(view) != printed:
                    printed, shown_at = summary(view), time.monotonic()
                    console.print(printed, highlight=False)
    except KeyboardInterrupt:
        console.print("stopped watching; the sweep continues")
    for part in _parts(view):
        console.print(part, highlight=False)


def summary(view: SweepView) -> str:
    """One line: the number of stages in each state, and the speed of the running stages together."""
    parts = [f"{view.sweep}: {view.counts[StageState.DONE]}/{view.counts.total()} stages done"]
    parts += [
        f"{view.counts[state]} {state.value}" for state in StageState if state is not StageState.DONE and view.counts[state]
    ]
    if view.images_per_second:
        parts.append(f"{view.images_per_second:,.0f} images/s")
    return ", ".join(parts)


def _parts(view: SweepView) -> list[str | Table | Text]:
    parts: list[str | Table | Text] = []
    if view.running:
        parts.append(_running_table(view.running))
    for name, failure in view.failures[:MAX_FAILURE_LINES]:
        parts.append(Text(f"failed {name} ({failure.state}): {failure.headline}", style="red"))
    if len(view.failures) > MAX_FAILURE_LINES:
        parts.append(Text(f"and {len(view.failures) - MAX_FAILURE_LINES} other failures", style="red"))
    if view.failures:
        parts.append(
            f"`umd-bench logs {view.sweep}/TRIAL` shows the cause, `umd-bench retry {view.sweep}` lets failed stages run again"
        )
    return [*parts, summary(view)]


def _running_table(running: tuple[RunningStage, ...]) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("trial", "stage"):
        table.add_column(heading, no_wrap=True)
    table.add_column("progress", min_width=20)
    for heading in ("images/s", "loss", "left"):
        table.add_column(heading, justify="right", no_wrap=True)
    for stage in running[:MAX_RUNNING_ROWS]:
        progress = stage.progress
        table.add_row(
            stage.trial,
            stage.stage,
            ProgressBar(total=1.0, completed=progress.fraction, width=20),
            f"{progress.images_per_second:,.0f}" if progress.images_per_second else "",
            f"{progress.loss:.4f}" if progress.loss is not None else "",
            clock(stage.seconds_left) if stage.seconds_left is not None else "",
        )
    if len(running) > MAX_RUNNING_ROWS:
        table.caption = f"{len(running) - MAX_RUNNING_ROWS} more are running"
    return table


def _failures_by_cause(statuses: dict[str, StageStatus], names: dict[str, tuple[str, str]]) -> tuple[tuple[str, Failure], ...]:
    """One entry for each failure fingerprint: ``TRIAL STAGE and 2 alike``, and the failure of the last such stage."""
    causes: dict[str, list[tuple[str, Failure]]] = {}
    for key, status in statuses.items():
        if status.failure is not None:
            causes.setdefault(status.failure.fingerprint, []).append((" ".join(names[key]), status.failure))
    entries = []
    for failures in causes.values():
        name, failure = failures[-1]
        entries.append((name if len(failures) == 1 else f"{name} and {len(failures) - 1} alike", failure))
    return tuple(entries)
