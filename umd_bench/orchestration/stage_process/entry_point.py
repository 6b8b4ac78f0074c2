"""How an executor calls a stage: the entry point's name, its arguments and its outcome. Imports no torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

RUN_STAGE = "umd_bench.orchestration.stage_process.run_stage:run_stage"


class Outcome(StrEnum):
    """How ``run_stage`` returned."""

    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"  # on request, its state saved
    BUSY = "busy"  # another process owns the stage


@dataclass(frozen=True)
class RankLaunch:
    """How a stage's rank 0 meets the ranks that its executor started.

    They reach rank 0 at ``host``, on a port that it chooses. Rank 0 calls ``announce`` with ``host:port``. ``size`` counts all
    ranks, rank 0 included. The stage runs on ``size`` devices even if another command has since requested a different number.
    """

    host: str
    announce: Callable[[str], None]
    size: int


class EntryPoint(Protocol):
    """A function that runs the stage ``key`` of a results folder, reading data sets below ``data_root``.

    ``stop`` is called between steps; true means: save the state and return. Slurm jobs and Ray give a ``rank_launch``; without
    one, a stage on several devices starts its other ranks itself.
    """

    def __call__(
        self, root: Path, key: str, data_root: Path, *, stop: Callable[[], bool], rank_launch: RankLaunch | None = None
    ) -> Any: ...


def load_entry_point(name: str) -> EntryPoint:
    """Import the function named ``package.module:function``."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)  # type: ignore[no-any-return]
