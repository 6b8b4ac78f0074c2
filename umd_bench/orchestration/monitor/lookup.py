"""From a name that a person types to stages: a run by the beginning of its key, a trial by its id or the beginning of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.store import RunDir, list_sweeps, read_sweep

MAX_CANDIDATES = 6  # that an error lists


@dataclass(frozen=True)
class NamedRun:
    """A stage's run directory and the stage's name: that in its trial, or its kind if it was looked up by key."""

    name: str
    run: RunDir


def lookup_stages(root: Path, what: str) -> list[NamedRun]:
    """The stages that ``what`` names: one run by its key, or the stages of one trial, parents first.

    ``what`` is a run's key, a trial's id or ``SWEEP/TRIAL``, or the beginning of one of these. Raises :class:`UserError` if it
    matches nothing, or more than one run or trial.
    """
    keys = sorted(key for key in _keys(root) if what and key.startswith(what))
    if len(keys) == 1:
        run = RunDir(root, keys[0])
        return [NamedRun(run.config().kind, run)]
    if keys:
        candidates = ", ".join(keys[:MAX_CANDIDATES])
        raise UserError(f"{what!r} is not accepted: {len(keys)} runs begin with it, {candidates}; give more of the key")
    trials = dict(_trials(root, what))
    exact = {name: stages for name, stages in trials.items() if what in (name, name.partition("/")[2])}
    # A trial that two sweeps share has the same stages in both, so it is one match.
    matches = list({tuple(stages.values()): stages for stages in (exact or trials).values()}.values())
    if len(matches) > 1:
        candidates = ", ".join(list(exact or trials)[:MAX_CANDIDATES])
        raise UserError(f"{what!r} is not accepted: {len(matches)} trials begin with it, {candidates}; give more of the name")
    if not matches:
        raise UserError(
            f"{what!r} is not accepted: no run and no trial in {root} begins with it; "
            "`umd-bench status` lists sweeps, `umd-bench status SWEEP` trials, `umd-bench status SWEEP --keys` keys"
        )
    return [NamedRun(name, RunDir(root, key)) for name, key in matches[0].items()]


def lookup_keys(root: Path, what: str) -> tuple[str | None, list[str]]:
    """A sweep's name and the keys of its stages, each once; if no sweep has that name, None and the keys of
    :func:`lookup_stages`."""
    if what in list_sweeps(root):
        trials = read_sweep(root, what).trials
        return what, list(dict.fromkeys(key for trial in trials for key in trial.stages.values()))
    return None, [stage.run.key for stage in lookup_stages(root, what)]


def _keys(root: Path) -> list[str]:
    try:
        return os.listdir(root / "stages")  # noqa: PTH208 - names alone, of thousands
    except FileNotFoundError:
        return []


def _trials(root: Path, what: str) -> Iterator[tuple[str, dict[str, str]]]:
    """``SWEEP/TRIAL`` and the stages of every trial whose id or ``SWEEP/TRIAL`` begins with ``what``."""
    for sweep in list_sweeps(root):
        for trial in read_sweep(root, sweep).trials:
            name = f"{sweep}/{trial.id}"
            if what and (trial.id.startswith(what) or name.startswith(what)):
                yield name, trial.stages
