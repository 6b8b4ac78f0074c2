"""What is known about a stage, read from its run directory and from nothing else."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from umd_bench.store.run import RunDir


class StageState(StrEnum):
    """Where a stage stands. ``interrupted`` has attempts but no owner, no failure and not all of its results: it can go on."""

    NEW = "new"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DONE = "done"


def stage_state(run: RunDir, snapshots: Iterable[int] = ()) -> StageState:
    """The state of one stage of which ``snapshots`` are needed besides its result: it is done when all of them are there."""
    if (run.path / "result.json").exists() and not run.lacks(snapshots):
        return StageState.DONE
    if not run.attempts():
        return StageState.NEW
    if run.is_owned():
        return StageState.RUNNING
    return StageState.FAILED if run.failure() is not None else StageState.INTERRUPTED


def parent_done(run: RunDir) -> bool:
    """Whether what a stage reads is there; true where it reads nothing, or was never prepared.

    Weights may be there before their stage has its result: a search looks at trainings on their way.
    """
    if not (run.path / "config.yaml").exists():
        return True
    spec = run.config()
    if spec.parent_key is None:
        return True
    parent = RunDir(run.root, spec.parent_key)
    return parent.result() is not None if spec.parent_nimg is None else not parent.lacks([spec.parent_nimg])
