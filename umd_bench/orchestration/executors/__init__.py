"""Where stages run. A new executor is a file beside this one and a row in :data:`EXECUTORS`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError, one_of
from umd_bench.orchestration.executors.contract import RUN_STAGE, TRIES, Ended, Executor, Kind


@dataclass(frozen=True)
class Place:
    """What an executor is started with. ``stage`` names the function that runs one (see ``stage_function``)."""

    root: Path
    data_root: Path
    workers: int
    threads: int
    stage: str = RUN_STAGE


def _inline(place: Place) -> Executor:
    from umd_bench.orchestration.executors.inline import InlineExecutor

    return InlineExecutor(place.root, place.data_root, stage=place.stage)


def _ray(place: Place) -> Executor:
    from umd_bench.orchestration.executors.ray_actors import RayExecutor

    return RayExecutor(place.root, place.data_root, workers=place.workers, threads=place.threads, stage=place.stage)


EXECUTORS: dict[str, Callable[[Place], Executor]] = {"inline": _inline, "ray": _ray}


def start_executor(name: str, root: Path, data_root: Path, *, workers: int, threads: int, stage: str = RUN_STAGE) -> Executor:
    """Start the named executor; an unknown name raises :class:`UserError` listing the valid ones."""
    if name not in EXECUTORS:
        raise UserError(f"--on {name!r} is not accepted: {one_of(EXECUTORS)}")
    return EXECUTORS[name](Place(root, data_root, workers, threads, stage))


__all__ = ["EXECUTORS", "TRIES", "Ended", "Executor", "Kind", "Place", "start_executor"]
