"""Whether Optuna's pruners prune a suggestion at a rung. Only the suggestions' values at rungs and their numbers decide this.

A suggestion is compared with the suggestions numbered 0 to ``number - parallel``, which were all settled when it was made. So
the decision depends on no timing and waits for nothing. Each decision gets a study of its own, in memory, with rung i at step
``reduction ** i``: these are the steps at which Optuna's successive halving decides.
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

DIRECTIONS: dict[Direction, StudyDirection] = {"maximise": StudyDirection.MAXIMIZE, "minimise": StudyDirection.MINIMIZE}


@dataclass(frozen=True)
class Rung:
    """A suggestion at one rung: the share of its training, the metric there, and whether the pruner ended it.

    ``system_attrs`` are the attributes that the pruner set on its trial.
    """

    share: float
    value: float
    pruned: bool
    system_attrs: dict[str, Any]


@dataclass(frozen=True)
class SettledTrial:
    """A settled suggestion as pruners see it: the rungs it reached, and whether it completed with scores."""

    rungs: tuple[Rung, ...]
    complete: bool


def decide_rung(
    config: PrunerConfig,
    direction: Direction,
    settled: Sequence[SettledTrial],
    number: int,
    rungs: tuple[Rung, ...],
    value: float,
    *,
    study_name: str,
) -> Rung:
    """Decide whether suggestion ``number`` is pruned at its next rung, where its metric is ``value``; returns that rung.

    ``settled`` are the suggestions 0, 1, ... to compare it with, ``rungs`` the rungs that it reached before. Hyperband derives
    the bracket from ``study_name`` and ``number``.
    """
    study = optuna.create_study(
        storage=optuna.storages.InMemoryStorage(),
        study_name=study_name,
        direction=DIRECTIONS[direction],
        pruner=_pruner(config),
    )
    for trial in settled:
        study.add_trial(_frozen(config, TrialState.COMPLETE if trial.complete else TrialState.PRUNED, trial.rungs))
    # Trials are numbered in the order they are added, so each suggestion in between is replaced by a trial without values.
    study.add_trials([_frozen(config, TrialState.FAIL, ())] * (number - len(settled)))
    share = config.rungs[len(rungs)]
    study.add_trial(_frozen(config, TrialState.RUNNING, (*rungs, Rung(share, value, pruned=False, system_attrs={}))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        pruned = study.pruner.prune(study, study.get_trials()[number])
    return Rung(share, value, bool(pruned), study.get_trials()[number].system_attrs)


def intermediate_values(config: PrunerConfig, rungs: Sequence[Rung]) -> dict[int, float]:
    """The rungs' values by Optuna's step."""
    return {config.reduction**index: rung.value for index, rung in enumerate(rungs)}


def _frozen(config: PrunerConfig, state: TrialState, rungs: tuple[Rung, ...]) -> FrozenTrial:
    return create_trial(
        state=state,
        value=0.0 if state is TrialState.COMPLETE else None,  # pruners read only the intermediate values
        intermediate_values=intermediate_values(config, rungs),
        system_attrs={name: value for rung in rungs for name, value in rung.system_attrs.items()},
    )


def _pruner(config: PrunerConfig) -> optuna.pruners.BasePruner:
    match config.kind:
        case "median":
            return optuna.pruners.MedianPruner(n_startup_trials=config.startup)
        case "successive_halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=config.reduction)
        case "hyperband":
            # One bracket per rung and one that prunes nothing. Optuna makes floor(log(max_resource, reduction)) + 1.
            end = config.reduction ** (len(config.rungs) + 1) - 1
            return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=end, reduction_factor=config.reduction)
