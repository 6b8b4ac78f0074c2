"""The interface of a joined Ray to :class:`~umd_bench.orchestration.executors.ray.executor.RayExecutor`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Protocol

# Options of ray.init that are the same for every Ray.
QUIET: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}


class RayConnection(Protocol):
    """A Ray that this process has joined."""

    environment: dict[str, str]
    """Environment variables that actors do not inherit and must be given."""

    def gpus_per_stage(self, requested: float | None, workers: int) -> float:
        """How many GPUs each device of a stage takes; raises :class:`UserError` if ``requested`` must not be None here."""

    def check_nodes(self, root: Path, data_root: Path) -> None:
        """Raise :class:`UserError` unless every node can run stages with these folders."""

    def room(self, threads: int, gpus: float) -> int:
        """How many processes of ``threads`` CPUs and ``gpus`` GPUs fit at a time, if nothing else runs."""

    def answers(self) -> bool:
        """Whether the head answers. Call this before any other call of Ray, which would wait for a lost head."""

    def alive(self, node: str) -> bool:
        """Whether the node with this id is alive; True also if the head does not answer."""

    def check(self) -> None:
        """Raise :class:`UserError` if this Ray is lost."""

    def close(self) -> None:
        """Leave this Ray, and end it if it is private; may be called twice."""
