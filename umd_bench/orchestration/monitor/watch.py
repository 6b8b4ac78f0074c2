"""A sweep as it runs, seen from its run directories alone: whoever runs it, wherever, and without getting in its way."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from umd_bench.orchestration.graph import Node
from umd_bench.orchestration.monitor.live import PLAIN_EVERY_SECONDS, Pulse, clock, pulse
from umd_bench.orchestration.monitor.stage_status import StageStatus, Survey, expected, keys_of
from umd_bench.store import Failure, RunDir, StageState, SweepRecord, read_sweep

EVERY_SECONDS = 1.0
MOST_RUNNING, MOST_FAILURES = 16, 5


@dataclass(frozen=True)
class Running:
    """A stage at work, named by the first trial that needs it; ``seconds_left`` is None until it can be told."""

    trial: str
    stage: str
    pulse: Pulse
    seconds_left: float | None


@dataclass(frozen=True)
class View:
    """What there is to see at one moment; failures of one cause are one, named by one of their stages."""

    sweep: str
    counts: Counter[StageState]
    running: tuple[Running, ...]
    failures: tuple[tuple[str, Failure], ...]

    @property
    def complete(self) -> bool:
        """Whether every stage has its result."""
        return set(self.counts) == {StageState.DONE}

    @property
    def images_per_second(self) -> float:
        """Of all training stages together."""
        return sum(stage.pulse.images_per_second or 0 for stage in self.running)


class Watcher:
    """Looks at one sweep again and again; a stage that is done is not looked at twice."""

    def __init__(self, root: Path, sweep: str) -> None:
        """Raises :class:`UserError` for an unknown sweep."""
        self._root, self._sweep = root, sweep
        self._survey = Survey(root)
        self._nodes: dict[str, Node] = {}
        self._begun: dict[str, tuple[float, float]] = {}  # fraction and time of the first look at a stage at work
        read_sweep(root, sweep)

    def look(self) -> View:
        """The sweep now; its record is read anew, since another command may have added trials."""
        record = read_sweep(self._root, self._sweep)
        stands = expected(record, self._survey.look(keys_of(record)))
        names = _names(record)
        running = [self._running(key, *names[key]) for key, stand in stands.items() if stand.state is StageState.RUNNING]
        return View(record.name, Counter(stand.state for stand in stands.values()), tuple(running), _failures(stands, names))

    def _running(self, key: str, trial: str, stage: str) -> Running:
        if key not in self._nodes:
            self._nodes[key] = Node(RunDir(self._root, key).config(), stage, StageState.RUNNING)
        beat, now = pulse(self._root, self._nodes[key]), time.monotonic()
        first, then = self._begun.setdefault(key, (beat.fraction, now))
        stage_config = self._nodes[key].spec.stage
        left = None
        if beat.images_per_second and hasattr(stage_config, "nimg"):
            left = (1 - beat.fraction) * stage_config.nimg / beat.images_per_second
        elif beat.fraction > first:
            left = (1 - beat.fraction) * (now - then) / (beat.fraction - first)
        return Running(trial, stage, beat, left)


def watch(
    root: Path,
    sweep: str,
    console: Console,
    *,
    every_seconds: float = EVERY_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Show the sweep until every stage has its result. Ctrl-C leaves; nothing that runs is touched.

    On a terminal the view is redrawn in place; elsewhere a line is written now and then, if it has changed. Raises
    :class:`UserError` for an unknown sweep.
    """
    watcher = Watcher(root, sweep)
    view, shown_at = watcher.look(), time.monotonic()
    try:
        if console.is_terminal:
            with Live(console=console, auto_refresh=False, transient=True) as live:
                while not view.complete:
                    live.update(Group(*_parts(view)), refresh=True)
                    sleep(every_seconds)
                    view = watcher.look()
        else:
            said = summary(view)
            console.print(said, highlight=False)
            while not view.complete:
                sleep(every_seconds)
                view = watcher.look()
                if time.monotonic() - shown_at >= PLAIN_EVERY_SECONDS and summary(view) != said:
                    said, shown_at = summary(view), time.monotonic()
                    console.print(said, highlight=False)
    except KeyboardInterrupt:
        console.print("left; what runs goes on")
    for part in _parts(view):
        console.print(part, highlight=False)


def summary(view: View) -> str:
    """One line: how many stages are in each state, and how fast those at work are together."""
    parts = [f"{view.sweep}: {view.counts[StageState.DONE]}/{view.counts.total()} stages done"]
    parts += [
        f"{view.counts[state]} {state.value}" for state in StageState if state is not StageState.DONE and view.counts[state]
    ]
    if view.images_per_second:
        parts.append(f"{view.images_per_second:,.0f} images/s")
    return ", ".join(parts)


def _parts(view: View) -> list[str | Table | Text]:
    parts: list[str | Table | Text] = []
    if view.running:
        table = Table(box=None, pad_edge=False)
        for heading in ("trial", "stage"):
            table.add_column(heading, no_wrap=True)
        table.add_column("progress", min_width=20)
        for heading in ("images/s", "loss", "left"):
            table.add_column(heading, justify="right", no_wrap=True)
        for stage in view.running[:MOST_RUNNING]:
            beat = stage.pulse
            table.add_row(
                stage.trial,
                stage.stage,
                ProgressBar(total=1.0, completed=beat.fraction, width=20),
                f"{beat.images_per_second:,.0f}" if beat.images_per_second else "",
                f"{beat.loss:.4f}" if beat.loss is not None else "",
                clock(stage.seconds_left) if stage.seconds_left is not None else "",
            )
        if len(view.running) > MOST_RUNNING:
            table.caption = f"and {len(view.running) - MOST_RUNNING} more at work"
        parts.append(table)
    for name, failure in view.failures[:MOST_FAILURES]:
        parts.append(Text(f"failed {name} ({failure.state}): {failure.headline}", style="red"))
    if len(view.failures) > MOST_FAILURES:
        parts.append(Text(f"and {len(view.failures) - MOST_FAILURES} failures more", style="red"))
    if view.failures:
        parts.append(f"`umd-bench logs {view.sweep}/TRIAL` says why, `umd-bench retry {view.sweep}` gives another try")
    return [*parts, summary(view)]


def _names(record: SweepRecord) -> dict[str, tuple[str, str]]:
    """Of each stage the first trial that needs it and its name there."""
    return {key: (trial.id, name) for trial in reversed(record.trials) for name, key in trial.stages.items()}


def _failures(stands: dict[str, StageStatus], names: dict[str, tuple[str, str]]) -> tuple[tuple[str, Failure], ...]:
    groups: dict[str, list[tuple[str, Failure]]] = {}
    for key, stand in stands.items():
        if stand.failure is not None:
            groups.setdefault(stand.failure.fingerprint, []).append((" ".join(names[key]), stand.failure))
    return tuple(_grouped(group) for group in groups.values())


def _grouped(failures: Iterable[tuple[str, Failure]]) -> tuple[str, Failure]:
    named = list(failures)
    name, failure = named[-1]
    return (name if len(named) == 1 else f"{name} and {len(named) - 1} alike"), failure
