"""Where stages run. A new executor is a file beside this one and a row in :data:`EXECUTORS`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from umd_bench.config.errors import UserError, one_of
from umd_bench.orchestration.executors.contract import Ended, Executor


def _inline(root: Path, data_root: Path, workers: int, threads: int) -> Executor:
    from umd_bench.orchestration.executors.inline import InlineExecutor

    return InlineExecutor(root, data_root)


def _ray(root: Path, data_root: Path, workers: int, threads: int) -> Executor:
    from umd_bench.orchestration.executors.ray_actors import RayExecutor

    return RayExecutor(root, data_root, workers=workers, threads=threads)


# (results folder, data folder, workers, threads of a stage) -> a started executor
EXECUTORS: dict[str, Callable[[Path, Path, int, int], Executor]] = {"inline": _inline, "ray": _ray}


def start_executor(name: str, root: Path, data_root: Path, *, workers: int, threads: int) -> Executor:
    """Start the named executor; an unknown name raises :class:`UserError` listing the valid ones."""
    if name not in EXECUTORS:
        raise UserError(f"--on {name!r} is not accepted: {one_of(EXECUTORS)}")
    return EXECUTORS[name](root, data_root, workers, threads)


__all__ = ["EXECUTORS", "Ended", "Executor", "start_executor"]
