"""A search's suggestions, made by Optuna's ask and tell and stored in one SQLite file that only the scheduler's process opens.

The values of suggestion k depend only on the search's seed, on k, and on the results of the suggestions numbered 0 to
``k - parallel``:

- Every suggestion has a sampler of its own, seeded by :func:`derive_seed` with k. No sampler state lives in memory.
- Optuna gets the results in the order of the suggestions' numbers, one at a time, and makes at most one suggestion after each.
  So whatever the order in which stages end, the sampler of suggestion k sees the results of the suggestions up to
  ``k - parallel``, and sees the others as open.
- A suggestion is made in a copy of the study in memory and then written in one transaction. A kill leaves all of it or nothing,
  and if it leaves nothing, the next command makes the same suggestion.

Two samplers keep parallel suggestions apart: ``tpe`` treats open suggestions as bad (the constant liar), and ``gp`` conditions
on them (expected improvement of the batch). ``random`` and ``nsga2`` ignore open suggestions. For ``tpe``, pruned suggestions
rank behind all complete ones; ``gp`` conditions on them as on open ones; ``nsga2`` takes no parents from them.

A pruner's decision (:mod:`umd_bench.orchestration.search.pruning`) is written, in one transaction, before anything acts on it.
"""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.sweep.search import Dimension, SearchConfig
from umd_bench.orchestration.search.pruning import DIRECTIONS, Rung, SettledTrial, decide_rung, intermediate_values

State = Literal["open", "done", "failed", "pruned"]
_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "open",
    TrialState.COMPLETE: "done",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}
_OPTUNA_STATES = {state: optuna_state for optuna_state, state in _STATES.items()}
_BUSY_SECONDS = 30.0  # to wait for a locked database
# Names of the user attributes in the database.
_RUNGS, _WHY, _HAD_RESULT = "rungs", "why", "finished"


@dataclass(frozen=True)
class Suggestion:
    """A suggestion of Optuna's: ``values`` by path, as a trial gets them.

    A done suggestion has ``scores``, in the objectives' order; a failed one has a reason, ``why``. ``rungs`` are the rungs
    it has reached. ``had_result``: its trials had their results when it was made, so it is not pruned.
    """

    number: int
    values: dict[str, Any]
    state: State
    scores: tuple[float, ...] = ()
    why: str = ""
    rungs: tuple[Rung, ...] = ()
    had_result: bool = False

    @property
    def pruned_at(self) -> float | None:
        """The share of its training at which it was pruned, even if the study does not know yet; None if it was not pruned."""
        return self.rungs[-1].share if self.rungs and self.rungs[-1].pruned else None


class Study:
    """The suggestions of one search over one arm. Numbers count from 0 without gaps."""

    def __init__(self, file: Path, name: str, config: SearchConfig) -> None:
        """Open the study ``name`` in the SQLite file; creates either if it does not exist.

        Raises :class:`UserError` if the file is not such a database.
        """
        self._config = config
        self._distributions = {path: _distribution(dimension) for path, dimension in config.space.items()}
        self._directions = [DIRECTIONS[direction] for direction in config.objectives.values()]
        try:
            self._storage = optuna.storages.get_storage(_open(file))
            self._study = optuna.create_study(
                storage=self._storage, study_name=name, directions=self._directions, load_if_exists=True
            )
            self._study_id = self._storage.get_study_id_from_name(name)
        except Exception as error:  # of SQLAlchemy, SQLite and Optuna
            message = str(error).strip().partition("\n")[0]
            raise UserError(f"{file} cannot be used ({message}); move it away to begin the search anew") from error

    def suggestions(self) -> list[Suggestion]:
        """All suggestions, by number."""
        return [self._read(trial) for trial in self._study.get_trials(deepcopy=False)]

    def ask(self, has_result: Callable[[dict[str, Any]], bool] = lambda values: False) -> Suggestion:
        """Make the next suggestion and write it, along with whether ``has_result`` is true of its values."""
        trials = self._study.get_trials()
        copy = _in_memory(self._directions, self._sampler(len(trials)), [self._as_sampled(trial) for trial in trials])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            copy.ask(self._distributions)
        made = copy.get_trials()[-1]
        if has_result(self._read(made).values):
            made.set_user_attr(_HAD_RESULT, True)
        self._study.add_trial(made)
        return self._read(self._study.get_trials(deepcopy=False)[len(trials)])

    def report(self, number: int, value: float) -> Suggestion:
        """Report the pruner's metric of an open suggestion at its next rung, and decide whether it is pruned.

        The suggestion stays open until :meth:`tell`.
        """
        assert self._config.pruner is not None
        suggestions = self.suggestions()
        settled = suggestions[: max(0, number - self._config.parallel + 1)]
        suggestion = suggestions[number]
        rung = decide_rung(
            self._config.pruner,
            self._config.pruned_by[2],
            [SettledTrial(earlier.rungs, complete=earlier.state == "done") for earlier in settled],
            number,
            suggestion.rungs,
            value,
            study_name=f"search-{self._config.seed}",
        )
        if suggestion.had_result:
            rung = dataclasses.replace(rung, pruned=False)
        rungs = (*suggestion.rungs, rung)
        self._set_attribute(number, _RUNGS, [_rung_record(each) for each in rungs])
        return dataclasses.replace(suggestion, rungs=rungs)

    def tell(self, number: int, state: State, scores: tuple[float, ...] = (), why: str = "") -> None:
        """Settle an open suggestion: give it its final state."""
        if why:
            self._set_attribute(number, _WHY, why)
        self._study.tell(number, values=list(scores) if state == "done" else None, state=_OPTUNA_STATES[state])

    def _set_attribute(self, number: int, name: str, value: Any) -> None:
        # Through the storage, since only the process that asked for the trial has the object that could set it.
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, number)
        self._storage.set_trial_user_attr(trial_id, name, value)

    def _read(self, trial: FrozenTrial) -> Suggestion:
        values = {path: dimension.plain(trial.params[path]) for path, dimension in self._config.space.items()}
        attributes = trial.user_attrs
        return Suggestion(
            trial.number,
            values,
            _STATES[trial.state],
            scores=tuple(trial.values) if trial.state is TrialState.COMPLETE else (),
            why=attributes.get(_WHY, ""),
            rungs=tuple(_rung(record) for record in attributes.get(_RUNGS, ())),
            had_result=attributes.get(_HAD_RESULT, False),
        )

    def _as_sampled(self, trial: FrozenTrial) -> FrozenTrial:
        """The trial as the sampler sees it. A pruned trial is open for ``gp``, and has the values at its rungs for the others.

        It has these values only if the search has a single objective. They are negated if that objective and the pruner's
        metric have opposite directions.
        """
        if trial.state is not TrialState.PRUNED:
            return trial
        if self._config.sampler == "gp":  # it ignores pruned trials, and would suggest the same values again
            trial.state, trial.datetime_complete = TrialState.RUNNING, None
        elif len(self._directions) == 1 and self._config.pruner is not None:
            same = self._config.pruned_by[2] == next(iter(self._config.objectives.values()))
            reached = intermediate_values(self._config.pruner, self._read(trial).rungs)
            trial.intermediate_values = {step: value if same else -value for step, value in reached.items()}
        return trial

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The sampler of one suggestion: its draws depend only on the seed and the number."""
        config = self._config
        seed = derive_seed(config.seed, "search", number) % 2**32
        match config.sampler:
            case "random":
                return optuna.samplers.RandomSampler(seed)
            case "tpe":
                return optuna.samplers.TPESampler(seed=seed, n_startup_trials=config.startup, constant_liar=True)
            case "gp":
                return optuna.samplers.GPSampler(seed=seed, n_startup_trials=config.startup, deterministic_objective=False)
            case "nsga2":
                return optuna.samplers.NSGAIISampler(seed=seed, population_size=config.population)


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices is not None:
        return CategoricalDistribution(dimension.choices)
    assert dimension.low is not None
    assert dimension.high is not None
    if dimension.int:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log, step=int(dimension.step or 1))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log, step=dimension.step)


def _in_memory(
    directions: list[StudyDirection], sampler: optuna.samplers.BaseSampler, trials: list[FrozenTrial]
) -> optuna.Study:
    study = optuna.create_study(storage=optuna.storages.InMemoryStorage(), directions=directions, sampler=sampler)
    study.add_trials(trials)
    return study


def _rung_record(rung: Rung) -> dict[str, Any]:
    """A rung as the database stores it."""
    return {"share": rung.share, "value": rung.value, "pruned": rung.pruned, "noted": rung.system_attrs}


def _rung(record: dict[str, Any]) -> Rung:
    return Rung(record["share"], record["value"], record["pruned"], record["noted"])


def _open(file: Path) -> optuna.storages.RDBStorage:
    """Open the database. A new one is created under another name and then renamed, so that a kill leaves no unfinished one."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f".{file.name}.new")
        unfinished.unlink(missing_ok=True)
        storage = optuna.storages.RDBStorage(f"sqlite:///{unfinished.resolve()}")
        storage.remove_session()
        storage.engine.dispose()
        unfinished.replace(file)
    options = {"connect_args": {"timeout": _BUSY_SECONDS}}
    return optuna.storages.RDBStorage(f"sqlite:///{file.resolve()}", engine_kwargs=options)
