"""A search's suggestions, by Optuna's ask and tell, in one SQLite file that only the runner's process opens.

Which values the k-th suggestion has is a function of (the search's seed, k, the results before k - parallel) alone:

- Every suggestion has a sampler of its own, seeded by :func:`derive_seed` with k, so nothing is carried in memory.
- Results are told in the order of their numbers, one at a time, and after each at most one suggestion is made. Whichever stage
  ends first, suggestion k sees exactly the suggestions 0 .. k - parallel as told and the others as open.
- A suggestion is made in a copy of the study in memory and then written whole, in one transaction. A kill leaves it or leaves
  nothing, and what is made next is the same either way.

Open suggestions count as bad ones for ``tpe`` (the constant liar) and are conditioned on by ``gp`` (expected improvement of the
batch), so that suggestions made side by side keep apart; ``random`` and ``nsga2`` do without. Pruned ones rank behind all that
finished for ``tpe``, ``gp`` conditions on them as on open ones, and ``nsga2`` takes no parents from them.

What a pruner decided (:mod:`umd_bench.orchestration.search.pruning`) is written whole too, before anything follows from it.
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
from umd_bench.orchestration.search.pruning import Raced, Rung, reach, steps

State = Literal["open", "done", "failed", "pruned"]
_STATES: dict[TrialState, State] = {
    TrialState.RUNNING: "open",
    TrialState.COMPLETE: "done",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
}
_DIRECTIONS = {"maximise": StudyDirection.MAXIMIZE, "minimise": StudyDirection.MINIMIZE}
_BUSY_SECONDS = 30.0  # how long a locked database is waited for
_RUNGS, _WHY, _FINISHED = "rungs", "why", "finished"  # what is noted of a suggestion


@dataclass(frozen=True)
class Suggestion:
    """Values by path, as a trial gets them; ``scores`` in the objectives' order, of a done one; ``why`` of one that is not.

    ``rungs`` are those it came to. ``finished``: it had its result when it was made, and is not pruned.
    """

    number: int
    values: dict[str, Any]
    state: State
    scores: tuple[float, ...] = ()
    why: str = ""
    rungs: tuple[Rung, ...] = ()
    finished: bool = False

    @property
    def pruned_at(self) -> float | None:
        """The share of its training at which it was pruned, whether or not that was told yet."""
        return self.rungs[-1].share if self.rungs and self.rungs[-1].pruned else None


class Study:
    """The suggestions of one search over one arm. Numbers count from 0 without gaps."""

    def __init__(self, file: Path, name: str, config: SearchConfig) -> None:
        """Open the study ``name`` in the SQLite file, and make either where it is not there.

        Raises :class:`UserError` for a file that is no such database.
        """
        self._config = config
        self._distributions = {path: _distribution(dimension) for path, dimension in config.space.items()}
        self._directions = [_DIRECTIONS[direction] for direction in config.objectives.values()]
        try:
            storage = _open(file)
            self._study = optuna.create_study(
                storage=storage, study_name=name, directions=self._directions, load_if_exists=True
            )
        except Exception as error:  # of SQLAlchemy, SQLite and Optuna
            message = str(error).strip().partition("\n")[0]
            raise UserError(f"{file} cannot be used ({message}); move it away to begin the search anew") from error

    def suggestions(self) -> list[Suggestion]:
        """All of them, by number."""
        return [self._read(trial) for trial in self._study.get_trials(deepcopy=False)]

    def ask(self, finished: Callable[[dict[str, Any]], bool] = lambda values: False) -> Suggestion:
        """Make the next suggestion and keep it, with the answer of ``finished`` to whether its values have their result."""
        trials = self._study.get_trials()
        copy = _in_memory(self._directions, self._sampler(len(trials)), [self._as_sampled(trial) for trial in trials])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            copy.ask(self._distributions)
        made = copy.get_trials()[-1]
        if finished(self._read(made).values):
            made.set_user_attr(_FINISHED, True)
        self._study.add_trial(made)
        return self._read(self._study.get_trials(deepcopy=False)[len(trials)])

    def reach(self, number: int, value: float) -> Suggestion:
        """Note what the pruner's metric is at an open suggestion's next rung and decide there; nothing is told yet."""
        assert self._config.pruner is not None
        suggestions = self.suggestions()
        before = suggestions[: max(0, number - self._config.parallel + 1)]
        mine = suggestions[number]
        rung = reach(
            self._config.pruner,
            self._config.pruned_by[2],
            [Raced(earlier.rungs, earlier.state == "done") for earlier in before],
            number,
            mine.rungs,
            value,
            name=f"search-{self._config.seed}",
        )
        if mine.finished:
            rung = dataclasses.replace(rung, pruned=False)
        reached = (*mine.rungs, rung)
        trial_id = self._study.get_trials(deepcopy=False)[number]._trial_id
        self._study._storage.set_trial_user_attr(trial_id, _RUNGS, [dataclasses.asdict(each) for each in reached])
        return dataclasses.replace(mine, rungs=reached)

    def tell(self, number: int, state: State, scores: tuple[float, ...] = (), why: str = "") -> None:
        """Settle an open suggestion for good."""
        trial = self._study.get_trials(deepcopy=False)[number]
        if why:
            self._study._storage.set_trial_user_attr(trial._trial_id, _WHY, why)
        outcome = {word: told for told, word in _STATES.items()}[state]
        self._study.tell(number, values=list(scores) if state == "done" else None, state=outcome)

    def _read(self, trial: FrozenTrial) -> Suggestion:
        values = {path: dimension.plain(trial.params[path]) for path, dimension in self._config.space.items()}
        scores = tuple(trial.values) if trial.state is TrialState.COMPLETE else ()
        noted = trial.user_attrs
        rungs = tuple(Rung(**rung) for rung in noted.get(_RUNGS, ()))
        return Suggestion(
            trial.number, values, _STATES[trial.state], scores, noted.get(_WHY, ""), rungs, noted.get(_FINISHED, False)
        )

    def _as_sampled(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial as the sampler sees it: a pruned one with its values on the way, where they rank like the objective's."""
        if trial.state is not TrialState.PRUNED:
            return trial
        if self._config.sampler == "gp":  # which leaves pruned ones out, and would suggest the same again
            trial.state, trial.datetime_complete = TrialState.RUNNING, None
        elif len(self._directions) == 1 and self._config.pruner is not None:
            same = self._config.pruned_by[2] == next(iter(self._config.objectives.values()))
            reached = steps(self._config.pruner, self._read(trial).rungs)
            trial.intermediate_values = {step: value if same else -value for step, value in reached.items()}
        return trial

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """The sampler of one suggestion: what it draws depends on the seed and the number alone."""
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


def _open(file: Path) -> optuna.storages.RDBStorage:
    """The database, made beside and renamed where it is not there: a kill leaves no half-made one."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f".{file.name}.new")
        beside.unlink(missing_ok=True)
        made = optuna.storages.RDBStorage(f"sqlite:///{beside.resolve()}")
        made.remove_session()
        made.engine.dispose()
        beside.replace(file)
    options = {"connect_args": {"timeout": _BUSY_SECONDS}}
    return optuna.storages.RDBStorage(f"sqlite:///{file.resolve()}", engine_kwargs=options)
