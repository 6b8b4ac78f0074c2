"""The state of a stage, read from its run directory alone."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

from umd_bench.store.run import RunDir


class StageState(StrEnum):
    """The state of a stage. An ``interrupted`` stage can continue: it was begun and is not done, without owner or failure."""

    NEW = "new"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DONE = "done"


def stage_state(run: RunDir, snapshots: Iterable[int] = ()) -> StageState:
    """The state of one stage, which is done when its result and all of ``snapshots`` (images seen) exist."""
    if (run.path / "result.json").exists() and not run.missing_snapshots(snapshots):
        return StageState.DONE
    if not run.attempts():
        return StageState.NEW
    if run.is_owned():
        return StageState.RUNNING
    return StageState.FAILED if run.failure() is not None else StageState.INTERRUPTED


def parent_done(run: RunDir) -> bool:
    """Whether the weights that a stage starts from exist; true if it starts from none, or was never prepared.

    A snapshot may exist before its stage has a result: a search evaluates trainings that still run.
    """
    if not (run.path / "config.yaml").exists():
        return True
    spec = run.config()
    if spec.parent_key is None:
        return True
    parent = RunDir(run.root, spec.parent_key)
    return parent.result() is not None if spec.parent_nimg is None else not parent.missing_snapshots([spec.parent_nimg])
