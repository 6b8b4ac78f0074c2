"""Run directories: their layout, what may be written into them and when, and the ledger that is read from them."""

from umd_bench.store.ledger import StageState, parent_done, stage_state
from umd_bench.store.run import Attempt, Failure, RunDir, StageBusy
from umd_bench.store.sweeps import (
    SearchRecord,
    SuggestionRecord,
    SweepRecord,
    TrialRecord,
    cancel_request,
    list_sweeps,
    read_sweep,
    sweep_dir,
    write_sweep,
)

__all__ = [
    "Attempt",
    "Failure",
    "RunDir",
    "SearchRecord",
    "StageBusy",
    "StageState",
    "SuggestionRecord",
    "SweepRecord",
    "TrialRecord",
    "cancel_request",
    "list_sweeps",
    "parent_done",
    "read_sweep",
    "stage_state",
    "sweep_dir",
    "write_sweep",
]
