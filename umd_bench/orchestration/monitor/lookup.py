"""Finds the stages that a person names by the beginning of a run's key, or by a trial's id or the beginning of it."""

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
    """A stage's run directory, and the stage's name in its trial, or its kind if it was looked up by key."""

    name: str
    run: RunDir


def lookup_stages(root: Path, query: str) -> list[NamedRun]:
    """The stages that ``query`` names: one run by its key, or the stages of one trial, parents first.

    ``query`` is a run's key, a trial's id or ``SWEEP/TRIAL``, or the beginning of one of these. Raises :class:`UserError` if it
    matches nothing, or more than one run or trial.
    """
    keys = sorted(key for key in _keys(root) if query and key.startswith(query))
    if len(keys) == 1:
        run = RunDir(root, keys[0])
        return [NamedRun(run.config().kind, run)]
    if keys:
        candidates = ", ".join(keys[:MAX_CANDIDATES])
        raise UserError(f"{query!r} is not accepted: {len(keys)} runs begin with it, {candidates}; give more of the key")
    trials = dict(_trials(root, query))
    exact = {name: stages for name, stages in trials.items() if query in (name, name.partition("/")[2])}
    # A trial that two sweeps share has the same stages in both, so it is one match.
    matches = list({tuple(stages.values()): stages for stages in (exact or trials).values()}.values())
    if len(matches) > 1:
        candidates = ", ".join(list(exact or trials)[:MAX_CANDIDATES])
        raise UserError(f"{query!r} is not accepted: {len(matches)} trials begin with it, {candidates}; give more of the name")
    if not matches:
        raise UserError(
            f"{query!r} is not accepted: no run and no trial in {root} begins with it; "
            "`umd-bench status` lists sweeps, `umd-bench status SWEEP` trials, `umd-bench status SWEEP --keys` keys"
        )
    return [NamedRun(name, RunDir(root, key)) for name, key in matches[0].items()]


def lookup_keys(root: Path, query: str) -> tuple[str | None, list[str]]:
    """If ``query`` is a sweep's name, that name and the keys of the sweep's stages, each once.

    Otherwise None and the keys of :func:`lookup_stages`, which raises :class:`UserError`.
    """
    if query in list_sweeps(root):
        trials = read_sweep(root, query).trials
        return query, list(dict.fromkeys(key for trial in trials for key in trial.stages.values()))
    return None, [stage.run.key for stage in lookup_stages(root, query)]


def _keys(root: Path) -> list[str]:
    try:
        return os.listdir(root / "stages")  # noqa: PTH208 - only names are needed, and there are thousands
    except FileNotFoundError:
        return []


def _trials(root: Path, query: str) -> Iterator[tuple[str, dict[str, str]]]:
    """``SWEEP/TRIAL`` and the stages of every trial whose id or ``SWEEP/TRIAL`` begins with ``query``."""
    for sweep in list_sweeps(root):
        for trial in read_sweep(root, sweep).trials:
            name = f"{sweep}/{trial.id}"
            if query and (trial.id.startswith(query) or name.startswith(query)):
                yield name, trial.stages
