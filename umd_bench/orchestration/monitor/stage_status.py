"""Where every stage of some sweeps stands, read with as few looks at the disk as that takes.

A finished stage costs one look, a failed one its failure's record, and a stage that several trials or sweeps share is looked
at once. Ten thousand stages take well under two seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umd_bench.config.gc_pause import uncollected
from umd_bench.orchestration.executors.jobs.records import Jobs
from umd_bench.store import Failure, RunDir, StageState, SweepRecord, list_sweeps, read_sweep, stage_state

SCHEMA = 1
PRUNED = "pruned"  # a state of trials alone: of its stages some are done, and the others are left as they are


@dataclass(frozen=True)
class StageStatus:
    """The state of a stage, how many attempts it has had, and why the last one failed where it did.

    ``submitted``: it waits, new or interrupted, and a job was submitted for it that nothing is known to have ended.
    """

    state: StageState
    attempts: int
    failure: Failure | None = None
    submitted: bool = False


class Survey:
    """Looks at stages below ``root`` and remembers those that are done, which do not change again."""

    def __init__(self, root: Path) -> None:
        self._root, self._jobs = root, Jobs(root)
        self._done: dict[str, StageStatus] = {}

    def look(self, keys: Iterable[str]) -> dict[str, StageStatus]:
        """How each of these stages stands now."""
        return {key: self._done.get(key) or self._look(key) for key in keys}

    def _look(self, key: str) -> StageStatus:
        run = RunDir(self._root, key)
        state = stage_state(run)
        waits = state in (StageState.NEW, StageState.INTERRUPTED)
        submitted = waits and next(self._jobs.live([key]), None) is not None
        stand = StageStatus(state, len(run.attempts()), run.failure() if state is StageState.FAILED else None, submitted)
        if state is StageState.DONE:
            self._done[key] = stand
        return stand


def keys_of(record: SweepRecord) -> list[str]:
    """The sweep's stages, each once."""
    return list(dict.fromkeys(key for trial in record.trials for key in trial.stages.values()))


def expected(record: SweepRecord, stands: dict[str, StageStatus]) -> dict[str, StageStatus]:
    """Of the sweep's stages those that have their result or are to get it: not what a search pruned, unless it still runs."""
    given_up = record.given_up()
    there = (StageState.DONE, StageState.RUNNING)
    return {key: stands[key] for key in keys_of(record) if key not in given_up or stands[key].state in there}


@uncollected()
def status_json(root: Path, name: str | None) -> dict[str, Any]:
    """Where sweeps stand, for programs. Raises :class:`UserError` for an unknown sweep.

    The schema, to which fields may be added, and from which none is taken without another number in ``schema``:

        schema     1
        results    the results folder's absolute path
        sweeps     one object a sweep, by name (or the one that was asked for):
          name, question, tier
          complete   whether each of its stages has its result, but for those that a search pruned
          counts     state -> how many of its distinct stages are in it, every state named, less what was pruned
          pruned     how many trials a search ended early
          trials     one object a trial, in the sweep's order:
            id, method, seed
            axes       path of the field -> value
            state      failed, running, interrupted or new where one of its stages is, in this order of precedence; else done;
                       pruned where a search ended it early
            pruned     the share of its training at which it was pruned, or null
            stages     name in the trial -> key
        stages     key -> one object a stage, however many trials share it:
          state      new, running, interrupted, failed or done
          attempts   how many processes have begun it
          submitted  whether it waits for a job that was submitted and has not ended as far as is known
          failure    null, or of a failed one:
            state        nan, oom, error, user, died, timeout, ...
            fingerprint  equal for failures of one cause
            message
    """
    records = [read_sweep(root, sweep) for sweep in (list_sweeps(root) if name is None else [name])]
    stands = Survey(root).look(dict.fromkeys(key for record in records for key in keys_of(record)))
    return {
        "schema": SCHEMA,
        "results": str(root.resolve()),
        "sweeps": [_sweep_json(record, stands) for record in records],
        "stages": {key: _stage_json(stand) for key, stand in stands.items()},
    }


def _sweep_json(record: SweepRecord, stands: dict[str, StageStatus]) -> dict[str, Any]:
    waited_for, pruned = expected(record, stands), record.pruned()
    counts = Counter(stand.state for stand in waited_for.values())
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
                "state": PRUNED if trial.id in pruned else trial_state(stands[key].state for key in trial.stages.values()),
                "pruned": pruned.get(trial.id),
                "stages": trial.stages,
            }
            for trial in record.trials
        ],
    }


def trial_state(states: Iterable[StageState]) -> StageState:
    """A trial's state from its stages': what needs a person first, ``done`` only where all are."""
    there = set(states)
    order = (StageState.FAILED, StageState.RUNNING, StageState.INTERRUPTED, StageState.NEW)
    return next((state for state in order if state in there), StageState.DONE)


def _stage_json(stand: StageStatus) -> dict[str, Any]:
    failure = stand.failure
    told = None if failure is None else {"state": failure.state, "fingerprint": failure.fingerprint, "message": failure.message}
    return {"state": stand.state.value, "attempts": stand.attempts, "submitted": stand.submitted, "failure": told}
