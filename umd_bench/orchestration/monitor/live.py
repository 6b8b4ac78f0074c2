"""What a person sees while a sweep runs: a live table of trials on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.orchestration.graph import Node
from umd_bench.orchestration.scheduler import Progress
from umd_bench.store import RunDir, StageState

TAIL_BYTES = 8192  # of a running stage's events: enough for its last metrics
PLAIN_EVERY_SECONDS = 15.0
REDRAW_SECONDS = 0.25
MOST_ROWS = 24


@dataclass(frozen=True)
class Pulse:
    """The latest sign of life of a running stage; fractions in [0, 1], None where nothing is known yet."""

    fraction: float = 0.0
    images_per_second: float | None = None
    loss: float | None = None


def pulse(root: Path, node: Node) -> Pulse:
    """Read a running stage's last metrics or progress event from the end of its newest attempt's events."""
    run = RunDir(root, node.key)
    attempts = run.attempts()
    if not attempts:
        return Pulse()
    for event in reversed(_tail(run.attempt_path(attempts[-1]) / "events.jsonl")):
        if event.get("event") == "metrics" and isinstance(node.spec.stage, TrainStage):
            return Pulse(event["nimg"] / node.spec.stage.nimg, event.get("images_per_second"), event.get("loss"))
        if event.get("event") == "progress":
            return Pulse(event["done"] / max(event["total"], 1))
    return Pulse()


def _tail(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, 2) - TAIL_BYTES, 0))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    events = []
    for line in lines:
        try:
            events.append(json.loads(line))
        except ValueError:  # cut off at either end
            continue
    return events


class Forecast:
    """Time left, from the seconds that finished stages of each kind took and the workers there are."""

    def __init__(self, root: Path, slots: int) -> None:
        self._root, self._slots = root, slots
        self._seconds: dict[str, float] = {}

    def seconds_left(self, nodes: Iterable[Node], pulses: dict[str, Pulse]) -> float | None:
        """None until a stage of every kind that is left has finished."""
        known: dict[str, list[float]] = {}
        left = []
        for node in nodes:
            if node.state is not StageState.DONE:
                left.append(node)
                continue
            key = node.key
            if key not in self._seconds:
                result = RunDir(self._root, key).result()
                self._seconds[key] = result["cost"]["seconds"] if result else 0.0
            known.setdefault(node.name, []).append(self._seconds[key])
        means = {name: sum(seconds) / len(seconds) for name, seconds in known.items()}
        total = 0.0
        for node in left:
            if node.name not in means:
                return None
            total += means[node.name] * (1 - pulses.get(node.key, Pulse()).fraction)
        return total / self._slots


class Display:
    """Shows a :class:`Progress` whenever it is given one; a context manager around the run."""

    def __init__(self, console: Console, root: Path, trials: dict[str, list[str]], slots: int) -> None:
        """``trials`` maps a trial's id to the keys of its stages."""
        self._console, self._root, self._trials, self._slots = console, root, trials, slots
        self._forecast = Forecast(root, slots)
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None
        self._started = time.monotonic()
        self._last_look = self._started if self._live is None else float("-inf")
        self._announced: set[str] = set()

    def __enter__(self) -> Display:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, progress: Progress) -> None:
        """Redraw the table, or print what is new."""
        for key, failure in progress.failures.items():
            if key not in self._announced:
                self._announced.add(key)
                node = progress.nodes[key]
                self._console.print(
                    f"[red]failed[/] {node.trials[0]} {node.name} ({failure.state}): {failure.headline}",
                    highlight=False,
                    soft_wrap=True,
                )
        every = PLAIN_EVERY_SECONDS if self._live is None else REDRAW_SECONDS
        if time.monotonic() - self._last_look < every:  # looking costs the more, the more stages there are
            return
        self._last_look = time.monotonic()
        pulses = {key: pulse(self._root, node) for key, node in progress.nodes.items() if node.state is StageState.RUNNING}
        left = self._forecast.seconds_left(
            (n for n in progress.nodes.values() if n.key not in progress.blocked and n.key not in progress.failures), pulses
        )
        if self._live is not None:
            self._live.update(Group(self._table(progress, pulses), self._summary(progress, left)), refresh=True)
        else:
            self._console.print(self._summary(progress, left), highlight=False)

    def _summary(self, progress: Progress, left: float | None) -> str:
        done, total = progress.count(StageState.DONE), len(progress.nodes)
        parts = [f"{done}/{total} stages done", f"{progress.count(StageState.RUNNING)} running"]
        if progress.failures:
            parts.append(f"{len(progress.failures)} failed")
        if progress.blocked:
            parts.append(f"{len(progress.blocked)} waiting for a failed one")
        parts.append(f"{clock(time.monotonic() - self._started)} elapsed")
        if left is not None and done < total:
            parts.append(f"about {clock(left)} left")
        if progress.stopped_because is not None:
            parts.append(f"stopping: {progress.stopped_because}")
        return ", ".join(parts)

    def _table(self, progress: Progress, pulses: dict[str, Pulse]) -> Table:
        table = Table(box=None, pad_edge=False)
        for heading in ("trial", "stage"):
            table.add_column(heading, no_wrap=True)
        table.add_column("progress", min_width=20)
        for heading in ("images/s", "loss", "stages"):
            table.add_column(heading, justify="right", no_wrap=True)
        rows = [self._row(trial, keys, progress, pulses) for trial, keys in self._trials.items()]
        if len(rows) > MOST_ROWS:  # a long sweep: what runs or failed, then the rest as a count
            interesting = [row for row in rows if row[0]]
            hidden = len(rows) - len(interesting[:MOST_ROWS])
            rows = interesting[:MOST_ROWS]
            table.caption = f"and {hidden} trials that are done or wait"
        for _, cells in rows:
            table.add_row(*cells)
        return table

    def _row(
        self, trial: str, keys: list[str], progress: Progress, pulses: dict[str, Pulse]
    ) -> tuple[bool, list[str | Text | ProgressBar]]:
        nodes = [progress.nodes[key] for key in keys if key in progress.nodes]
        done = sum(node.state is StageState.DONE for node in nodes)
        count = f"{done}/{len(nodes)}"
        failed = next((node for node in nodes if node.key in progress.failures), None)
        running = next((node for node in nodes if node.key in pulses), None)
        if running is not None:
            beat = pulses[running.key]
            rate = f"{beat.images_per_second:,.0f}" if beat.images_per_second else ""
            loss = f"{beat.loss:.4f}" if beat.loss is not None else ""
            return True, [trial, running.name, ProgressBar(total=1.0, completed=beat.fraction, width=20), rate, loss, count]
        if failed is not None:
            return True, [trial, Text(f"{failed.name} failed", style="red"), "", "", "", count]
        if len(nodes) < len(keys):  # a search took the rest out
            return False, [trial, Text("pruned", style="dim"), "", "", "", f"{done}/{len(keys)}"]
        state = Text("done", style="green") if done == len(nodes) else Text("waiting", style="dim")
        return False, [trial, state, "", "", "", count]


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
