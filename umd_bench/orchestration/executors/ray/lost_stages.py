"""Stages whose actor no longer answers. Each ends only once it is certain that its process is gone."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ray

from umd_bench.orchestration.executors.contract import Ended, EndReason
from umd_bench.store import RunDir

DOUBT_SECONDS = 30.0  # for Ray to say that a node is gone; the node's processes end when its raylet does


@dataclass(frozen=True)
class _Lost:
    key: str
    node: str
    error: Exception
    since: float


class LostStages:
    """The lost stages of the results folder ``root``; ``alive`` says whether the node with an id is alive."""

    def __init__(self, root: Path, alive: Callable[[str], bool]) -> None:
        self._root, self._alive = root, alive
        self._lost: list[_Lost] = []

    def __bool__(self) -> bool:
        return bool(self._lost)

    def add(self, key: str, node: str, error: Exception) -> None:
        """The actor that ran this stage, on this node, has failed with this error."""
        self._lost.append(_Lost(key, node, error, time.monotonic()))

    def take_ended(self) -> list[Ended]:
        """Remove and return the stages whose process is gone and whose lease no process holds."""
        ended = []
        for lost in list(self._lost):
            certain = not isinstance(lost.error, ray.exceptions.ActorUnavailableError)
            late = time.monotonic() - lost.since > DOUBT_SECONDS
            node_gone = not self._alive(lost.node)
            if not (node_gone or certain or late) or RunDir(self._root, lost.key).is_owned():
                continue
            self._lost.remove(lost)
            reason = EndReason.NODE_FAIL if node_gone else _reason(lost.error)
            cause = "its Ray node was lost" if node_gone else "worker process ended"
            ended.append(Ended(lost.key, reason, f"{type(lost.error).__name__}: {cause} while it ran the stage"))
        return ended


def _reason(error: Exception) -> EndReason:
    """Ray kills a worker when the machine's memory runs short, and says so in its error."""
    out_of_memory = isinstance(error, ray.exceptions.OutOfMemoryError) or "running low on memory" in str(error)
    return EndReason.OOM if out_of_memory else EndReason.DIED
