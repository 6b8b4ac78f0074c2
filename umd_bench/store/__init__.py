"""The results folder: run directories of stages, the states read from them, and the records of sweeps.

In: a results folder and keys. Out: specs, results, failures, events and states; all writes are atomic, and results are never
replaced.
"""

from umd_bench.store.ledger import StageState, parent_done, stage_state
from umd_bench.store.run import Attempt, Failure, RunDir, StageBusy
from umd_bench.store.sweeps import (
    SearchRecord,
    SuggestionRecord,
    SweepRecord,
    TrialRecord,
    cancel_file,
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
    "cancel_file",
    "list_sweeps",
    "parent_done",
    "read_sweep",
    "stage_state",
    "sweep_dir",
    "write_sweep",
]
