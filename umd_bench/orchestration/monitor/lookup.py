"""From what a person types to stages: a run's key by its beginning, a sweep's trial by its name or the beginning of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.store import RunDir, list_sweeps, read_sweep

SHOWN = 6  # candidates that an error lists


@dataclass(frozen=True)
class Found:
    """A stage and what it is called where it was found: its name in the trial, or its kind."""

    name: str
    run: RunDir


def find_stages(root: Path, what: str) -> list[Found]:
    """The stages that ``what`` means: one run (a key or its beginning), or the stages of one trial, parents first.

    A trial is named by its id, by the beginning of it where only one begins so, or as ``SWEEP/TRIAL``. Raises
    :class:`UserError` where nothing or more than one thing is meant.
    """
    keys = sorted(key for key in _keys(root) if what and key.startswith(what))
    if len(keys) == 1:
        run = RunDir(root, keys[0])
        return [Found(run.config().kind, run)]
    if keys:
        raise UserError(f"{what!r} is not accepted: {len(keys)} runs begin so, {', '.join(keys[:SHOWN])}; give more of it")
    trials = dict(_trials(root, what))
    exact = {name: stages for name, stages in trials.items() if what in (name, name.partition("/")[2])}
    # the same trial in two sweeps is the same stages
    chosen = list({tuple(stages.values()): stages for stages in (exact or trials).values()}.values())
    if len(chosen) > 1:
        some = ", ".join(list(exact or trials)[:SHOWN])
        raise UserError(f"{what!r} is not accepted: {len(chosen)} trials begin so, {some}; give more of it")
    if not chosen:
        raise UserError(
            f"{what!r} is not accepted: no run and no trial in {root} begins so; "
            "`umd-bench status` lists sweeps, `umd-bench status SWEEP` trials, `umd-bench status SWEEP --keys` keys"
        )
    return [Found(name, RunDir(root, key)) for name, key in chosen[0].items()]


def find_work(root: Path, what: str) -> tuple[str | None, list[str]]:
    """The keys that a sweep's name, or else what :func:`find_stages` takes, stands for, each once; and that sweep's name."""
    if what in list_sweeps(root):
        trials = read_sweep(root, what).trials
        return what, list(dict.fromkeys(key for trial in trials for key in trial.stages.values()))
    return None, [found.run.key for found in find_stages(root, what)]


def _keys(root: Path) -> list[str]:
    try:
        return os.listdir(root / "stages")  # noqa: PTH208 - names alone, of thousands
    except FileNotFoundError:
        return []


def _trials(root: Path, what: str) -> Iterator[tuple[str, dict[str, str]]]:
    """``SWEEP/TRIAL`` and its stages of all trials that begin with ``what``."""
    for sweep in list_sweeps(root):
        for trial in read_sweep(root, sweep).trials:
            name = f"{sweep}/{trial.id}"
            if what and (trial.id.startswith(what) or name.startswith(what)):
                yield name, trial.stages
