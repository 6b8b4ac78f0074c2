"""The progress of a running stage, and the seconds that a running stage and a whole sweep still need.

These estimates follow stages that run now. :mod:`umd_bench.orchestration.forecast` predicts the cost of a sweep before it runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.orchestration.graph import Node
from umd_bench.store import RunDir, StageState

TAIL_BYTES = 8192  # the end of an events file that is read: enough to hold the last metrics


@dataclass(frozen=True)
class StageProgress:
    """The last report of a running stage: its fraction done in [0, 1], its speed and its loss (None until reported)."""

    fraction: float = 0.0
    images_per_second: float | None = None
    loss: float | None = None


def read_stage_progress(root: Path, node: Node) -> StageProgress:
    """Read the last ``metrics`` or ``progress`` event of the stage's newest attempt."""
    run = RunDir(root, node.key)
    attempts = run.attempts()
    if not attempts:
        return StageProgress()
    for event in reversed(_last_events(run.attempt_path(attempts[-1]) / "events.jsonl")):
        if event.get("event") == "metrics" and isinstance(node.spec.stage, TrainStage):
            return StageProgress(event["nimg"] / node.spec.stage.nimg, event.get("images_per_second"), event.get("loss"))
        if event.get("event") == "progress":
            return StageProgress(event["done"] / max(event["total"], 1))
    return StageProgress()


class TimeLeft:
    """Estimates the seconds left of stages and sweeps below ``root``."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._seconds_of_done: dict[str, float] = {}  # by key: a result does not change
        self._first_seen: dict[str, tuple[float, float]] = {}  # fraction and time of the first call for a stage

    def of_stage(self, node: Node, progress: StageProgress) -> float | None:
        """Seconds until a running stage is done; None until it has reported its speed or advanced since the first call.

        A training stage reports images per second. For other stages the speed is the fraction gained since the first call.
        """
        now = time.monotonic()
        first_fraction, first_time = self._first_seen.setdefault(node.key, (progress.fraction, now))
        left = 1 - progress.fraction
        if progress.images_per_second and isinstance(node.spec.stage, TrainStage):
            return left * node.spec.stage.nimg / progress.images_per_second
        if progress.fraction > first_fraction:
            return left * (now - first_time) / (progress.fraction - first_fraction)
        return None

    def of_sweep(self, nodes: Iterable[Node], progress: dict[str, StageProgress], slots: int) -> float | None:
        """Seconds until all ``nodes`` are done when ``slots`` stages run at a time.

        Every stage is expected to take the mean time of the finished stages of its name. For a running stage, the fraction that
        ``progress`` (by key) reports is subtracted. None if an unfinished stage has a name that no finished stage has.
        """
        finished: dict[str, list[float]] = {}
        unfinished = []
        for node in nodes:
            if node.state is StageState.DONE:
                finished.setdefault(node.name, []).append(self._seconds(node.key))
            else:
                unfinished.append(node)
        if any(node.name not in finished for node in unfinished):
            return None
        means = {name: sum(seconds) / len(seconds) for name, seconds in finished.items()}
        return sum(means[node.name] * (1 - progress.get(node.key, StageProgress()).fraction) for node in unfinished) / slots

    def _seconds(self, key: str) -> float:
        if key not in self._seconds_of_done:
            result = RunDir(self._root, key).result()
            self._seconds_of_done[key] = result["cost"]["seconds"] if result else 0.0
        return self._seconds_of_done[key]


def clock(seconds: float) -> str:
    """``0:05``, ``12:30`` or ``1:02:03``."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def _last_events(path: Path) -> list[dict[str, Any]]:
    """The whole events within the last :data:`TAIL_BYTES` of an events file, oldest first."""
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
        except ValueError:  # the seek cuts off the first line, and the last one may be incomplete
            continue
    return events
