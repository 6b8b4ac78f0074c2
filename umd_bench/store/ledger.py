"""What is known about a stage, read from its run directory and from nothing else."""

from __future__ import annotations

from enum import StrEnum

from umd_bench.store.run import RunDir


class StageState(StrEnum):
    """Where a stage stands. ``interrupted`` has attempts but no owner, no result and no failure: it can be resumed."""

    NEW = "new"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    DONE = "done"


def stage_state(run: RunDir) -> StageState:
    """The state of one stage."""
    if (run.path / "result.json").exists():
        return StageState.DONE
    if not run.attempts():
        return StageState.NEW
    if run.is_owned():
        return StageState.RUNNING
    return StageState.FAILED if run.failure() is not None else StageState.INTERRUPTED
