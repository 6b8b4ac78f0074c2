"""Whether a trial is pruned at a rung, by Optuna's pruners, as a function of values and numbers alone.

A trial's value at a rung is compared with those of the suggestions before number - parallel, which were all settled when it was
suggested. So it does not matter which stage ends first, and there is nothing to wait for. The pruner sees a study in memory
that is made for one decision: rung i stands at step reduction ** i, which is where Optuna's successive halving looks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from umd_bench.config.sweep.pruning import Direction, PrunerConfig

_DIRECTIONS = {"maximise": StudyDirection.MAXIMIZE, "minimise": StudyDirection.MINIMIZE}


@dataclass(frozen=True)
class Rung:
    """A trial at one rung: the share of its training, the metric there, whether it was pruned; ``noted`` is the pruner's."""

    share: float
    value: float
    pruned: bool
    noted: dict[str, Any]


@dataclass(frozen=True)
class Raced:
    """A settled suggestion as pruners see it: the rungs it came to, and whether it went on to a score."""

    rungs: tuple[Rung, ...]
    finished: bool


def reach(
    config: PrunerConfig,
    direction: Direction,
    before: Sequence[Raced],
    number: int,
    rungs: tuple[Rung, ...],
    value: float,
    *,
    name: str,
) -> Rung:
    """What becomes of suggestion ``number`` at its next rung, where the metric is ``value``.

    ``before`` are the suggestions 0, 1, ... that it is compared with, ``rungs`` its own so far, ``name`` that of its study,
    from which and the number hyperband's bracket follows.
    """
    study = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(), study_name=name, direction=_DIRECTIONS[direction], pruner=_pruner(config)
    )
    for raced in before:
        study.add_trial(_frozen(config, TrialState.COMPLETE if raced.finished else TrialState.PRUNED, raced.rungs))
    # Numbers are places in the study: what is still open between them stands there without a value.
    study.add_trials([_frozen(config, TrialState.FAIL, ())] * (number - len(before)))
    share = config.rungs[len(rungs)]
    study.add_trial(_frozen(config, TrialState.RUNNING, (*rungs, Rung(share, value, pruned=False, noted={}))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruned = study.pruner.prune(study, study.get_trials()[number])
    return Rung(share, value, bool(pruned), study.get_trials()[number].system_attrs)


def steps(config: PrunerConfig, rungs: Sequence[Rung]) -> dict[int, float]:
    """Values by Optuna's step."""
    return {config.reduction**place: rung.value for place, rung in enumerate(rungs)}


def _frozen(config: PrunerConfig, state: TrialState, rungs: tuple[Rung, ...]) -> FrozenTrial:
    return create_trial(
        state=state,
        value=0.0 if state is TrialState.COMPLETE else None,  # pruners look at what was measured on the way
        intermediate_values=steps(config, rungs),
        system_attrs={name: value for rung in rungs for name, value in rung.noted.items()},
    )


def _pruner(config: PrunerConfig) -> optuna.pruners.BasePruner:
    match config.kind:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=config.startup)
        case "successive_halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=config.reduction)
        case "hyperband":
            # As many brackets as rungs, and one that prunes nothing; the number of them is the logarithm, rounded down.
            end = config.reduction ** (len(config.rungs) + 1) - 1
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=end, reduction_factor=config.reduction)
