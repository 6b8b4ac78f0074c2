"""The status of every stage of some sweeps, read with few disk accesses, and as JSON for programs.

A finished stage costs two accesses, one for its result and one to count its attempts. Other stages cost a few more. A stage
that several trials or sweeps share is read once. Ten thousand stages take well under two seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umd_bench.config.gc_pause import gc_paused
from umd_bench.orchestration.executors.jobs.records import JobRecords
from umd_bench.store import Failure, RunDir, StageState, SweepRecord, list_sweeps, read_sweep, stage_state

SCHEMA = 1
PRUNED = "pruned"  # a state of trials only: the search dropped the trial's unfinished stages


@dataclass(frozen=True)
class StageStatus:
    """A stage's state, its number of attempts and, if it has failed, the failure of its last attempt.

    ``submitted`` says that the stage is new or interrupted, and that a job was submitted for it whose end is not known.
    """

    state: StageState
    attempts: int
    failure: Failure | None = None
    submitted: bool = False


class StatusReader:
    """Reads the status of stages below ``root``; a finished stage is read once, since it does not change again."""

    def __init__(self, root: Path) -> None:
        self._root, self._jobs = root, JobRecords(root)
        self._done: dict[str, StageStatus] = {}

    def read(self, keys: Iterable[str]) -> dict[str, StageStatus]:
        """The present status of each stage, by key."""
        return {key: self._done.get(key) or self._read(key) for key in keys}

    def _read(self, key: str) -> StageStatus:
        run = RunDir(self._root, key)
        state = stage_state(run)
        waits = state in (StageState.NEW, StageState.INTERRUPTED)
        submitted = waits and self._jobs.open_claim(key) is not None
        status = StageStatus(state, len(run.attempts()), run.failure() if state is StageState.FAILED else None, submitted)
        if state is StageState.DONE:
            self._done[key] = status
        return status


def stage_keys(record: SweepRecord) -> list[str]:
    """The keys of the sweep's stages, each once."""
    return list(dict.fromkeys(key for trial in record.trials for key in trial.stages.values()))


def first_names(record: SweepRecord) -> dict[str, tuple[str, str]]:
    """By key: the id of the first trial that uses the stage, and the stage's name in that trial."""
    return {key: (trial.id, name) for trial in reversed(record.trials) for name, key in trial.stages.items()}


def wanted_statuses(record: SweepRecord, statuses: dict[str, StageStatus]) -> dict[str, StageStatus]:
    """The statuses of all stages but the ones that a search dropped.

    A dropped stage is included all the same if it is done or still runs.
    """
    dropped = record.abandoned_keys()
    counted = (StageState.DONE, StageState.RUNNING)
    return {key: statuses[key] for key in stage_keys(record) if key not in dropped or statuses[key].state in counted}


@gc_paused()
def status_json(root: Path, name: str | None) -> dict[str, Any]:
    """The status of the sweep ``name``, or of all sweeps, for programs. Raises :class:`UserError` for an unknown sweep.

    Its schema follows. Fields may be added to it; if one is removed or changes its meaning, ``schema`` gets another number::

        schema     1
        results    the results folder's absolute path
        sweeps     one object per sweep, by name:
          name, question, tier
          complete   whether every stage has its result; stages that a search pruned do not count
          counts     state -> number of stages, for every state; a shared stage counts once, a pruned one not at all
          pruned     how many trials a search ended early
          trials     one object per trial, in the sweep's order:
            id, method, seed
            axes       path of the field -> value
            state      failed, running, interrupted or new if one of its stages is, in this order of precedence; else done;
                       pruned if a search ended it early
            pruned     the share of its training at which it was pruned, or null
            stages     name in the trial -> key
        stages     key -> one object per stage, however many trials share it:
          state      new, running, interrupted, failed or done
          attempts   how many processes have begun it
          submitted  whether it waits for a job that was submitted and is not known to have ended
          failure    null, or for a failed stage:
            state        nan, oom, error, user, died, timeout, ...
            fingerprint  equal for failures with one cause
            message
    """
    records = [read_sweep(root, sweep) for sweep in (list_sweeps(root) if name is None else [name])]
    statuses = StatusReader(root).read(dict.fromkeys(key for record in records for key in stage_keys(record)))
    return {
        "schema": SCHEMA,
        "results": str(root.resolve()),
        "sweeps": [_sweep_json(record, statuses) for record in records],
        "stages": {key: _stage_json(status) for key, status in statuses.items()},
    }


def _sweep_json(record: SweepRecord, statuses: dict[str, StageStatus]) -> dict[str, Any]:
    wanted, pruned = wanted_statuses(record, statuses), record.pruned()
    counts = Counter(status.state for status in wanted.values())
    return {
        "name": record.name,
        "question": record.question,
        "tier": record.tier,
        "complete": set(counts) == {StageState.DONE},
        "counts": {state.value: counts[state] for state in StageState},
        "pruned": len(pruned),
        "trials": [
            {
                "id": trial.id,
                "method": trial.method,
                "seed": trial.seed,
                "axes": trial.axes,
                "state": PRUNED if trial.id in pruned else trial_state(statuses[key].state for key in trial.stages.values()),
                "pruned": pruned.get(trial.id),
                "stages": trial.stages,
            }
            for trial in record.trials
        ],
    }


def trial_state(states: Iterable[StageState]) -> StageState:
    """A trial's state from the states of its stages: failed before running, interrupted and new; done only if all are done."""
    present = set(states)
    order = (StageState.FAILED, StageState.RUNNING, StageState.INTERRUPTED, StageState.NEW)
    return next((state for state in order if state in present), StageState.DONE)


def _stage_json(status: StageStatus) -> dict[str, Any]:
    failure = status.failure
    return {
        "state": status.state.value,
        "attempts": status.attempts,
        "submitted": status.submitted,
        "failure": None
        if failure is None
        else {"state": failure.state, "fingerprint": failure.fingerprint, "message": failure.message},
    }
