"""A search as part of a sweep: suggestions become ordinary trials in the runner's graph, and their results are told back.

Everything that matters survives a kill: the suggestions stand in ``results/sweeps/<name>/search.db``, the results in run
directories. What a suggestion was made of is in :mod:`umd_bench.orchestration.suggesting`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.resolve import Sweep, Trial
from umd_bench.config.search import SearchConfig
from umd_bench.orchestration.checks import check_trials
from umd_bench.orchestration.plan import Node, add_nodes, trial_records
from umd_bench.orchestration.runner import Progress
from umd_bench.orchestration.suggesting import State, Study, Suggestion
from umd_bench.store import RunDir, SearchRecord, StageState, SuggestionRecord, SweepRecord, sweep_dir, write_sweep

Admit = Callable[[Sequence[Trial]], dict[str, Node]]
"""Proves that trials can run and gives their graph, as :func:`umd_bench.orchestration.execute.prepare` does."""


@dataclasses.dataclass
class _Arm:
    """One combination of the axes and what was suggested for it; ``trials`` and ``refused`` are by the suggestion's number."""

    axes: dict[str, Any]
    study: Study
    suggestions: list[Suggestion]
    trials: dict[int, list[Trial]] = dataclasses.field(default_factory=dict)
    refused: dict[int, str] = dataclasses.field(default_factory=dict)

    def may_ask(self, config: SearchConfig) -> bool:
        """Whether another suggestion is due: fewer than there are to be, and fewer than ``parallel`` open."""
        n_open = sum(suggestion.state == "open" for suggestion in self.suggestions)
        return len(self.suggestions) < config.trials and n_open < config.parallel


class Search:
    """Suggests trials for a sweep while its runner works; a context manager that keeps other commands from the same search.

    ``nodes`` is the graph of all that is not settled yet, and the one that the runner has to be given: :meth:`advance` adds to
    it. A stage fails at most once a command; a suggestion that was told as failed stays so.
    """

    def __init__(self, sweep: Sweep, root: Path, admit: Admit, *, data_root: Path | None = None) -> None:
        """Open the search, or go on with it. Raises :class:`UserError` for a space or objectives that no trial can have, and
        while another command is at work on the search."""
        assert sweep.config.search is not None
        self._sweep, self._root, self._admit, self._data_root = sweep, root, admit, data_root
        self._config: SearchConfig = sweep.config.search
        corners = sweep.corners()
        _check_objectives(self._config, corners[0])
        check_trials(corners, data_root)
        admit(corners)
        self._folder = sweep_dir(root, sweep.config.name)
        self._lock = filelock.FileLock(self._folder / "search.lock", thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise UserError(f"another command is at work on the search {sweep.config.name}: wait for it, or stop it") from None
        self.nodes: dict[str, Node] = {}
        self._arms = [self._open_arm(arm) for arm in sweep.arms]
        for arm in self._arms:
            for suggestion in arm.suggestions:
                self._take_up(arm, suggestion)
        self.advance(Progress(self.nodes, reused=0))
        self._write()

    def __enter__(self) -> Search:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()

    @property
    def trials(self) -> list[Trial]:
        """Every trial so far, each once."""
        trials = [trial for arm in self._arms for number in sorted(arm.trials) for trial in arm.trials[number]]
        return list({trial.id: trial for trial in trials}.values())

    @property
    def complete(self) -> bool:
        """Whether all suggestions were made and settled."""
        return self._search_record().complete

    @property
    def outcome(self) -> str:
        """How far the search has come, in one line."""
        return outcome_line(self._search_record())

    def advance(self, progress: Progress) -> list[Trial]:
        """Tell what has settled and suggest what may be; the trials that are new in ``progress.nodes``.

        Does nothing once the runner is stopping: what failed then may have failed for that reason.
        """
        if progress.stopped_because is not None:
            return []
        added: list[Trial] = []
        moved = False
        for arm in self._arms:
            while True:
                if arm.may_ask(self._config):
                    arm.suggestions.append(arm.study.ask())
                    added += self._take_up(arm, arm.suggestions[-1], progress)
                elif not self._tell_next(arm, progress):
                    break
                moved = True
        if moved:
            self._write()
        return added

    def record(self) -> SweepRecord:
        """The sweep as it stands, for tables and tracking."""
        config, trials = self._sweep.config, self.trials
        return SweepRecord(
            name=config.name,
            question=config.question,
            tier=config.tier,
            axes={
                path: list(dict.fromkeys(trial.axes[path] for trial in trials)) for path in (*config.axes, *self._config.space)
            },
            seeds=config.seeds,
            report=config.report,
            trials=trial_records(trials),
            search=self._search_record(),
        )

    def _open_arm(self, axes: dict[str, Any]) -> _Arm:
        study = Study(self._folder / "search.db", self._study_name(axes), self._config)
        return _Arm(axes, study, study.suggestions())

    def _study_name(self, arm: dict[str, Any]) -> str:
        """Names what the suggestions depend on: another space, objective or trial is another study, more trials are the same.

        An older study stays in the file, and its results in their run directories.
        """
        first = {path: dimension.first for path, dimension in self._config.space.items()}
        stages = [{name: spec.key for name, spec in trial.specs.items()} for trial in self._sweep.suggested(arm, first)]
        identity = {"search": self._config.model_dump(mode="json", exclude={"trials"}), "arm": arm, "stages": stages}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self._sweep.config.name}-{digest}"

    def _take_up(self, arm: _Arm, suggestion: Suggestion, progress: Progress | None = None) -> list[Trial]:
        """Make a suggestion's trials; those of an open one, and what a person asked another try for, go into the graph."""
        number = suggestion.number
        try:
            trials = self._sweep.suggested(arm.axes, suggestion.values)
            check_trials(trials, self._data_root)
        except UserError as error:
            arm.refused[number] = str(error)
            return []
        arm.trials[number] = trials
        keys = {spec.key for trial in trials for spec in trial.specs.values()}
        again = suggestion.state != "open" and any(RunDir(self._root, key).was_retried() for key in keys)
        if suggestion.state == "open" or again:
            add_nodes(self._root, self.nodes, self._admit(trials))
            if progress is not None:
                progress.reused += sum(self.nodes[key].state is StageState.DONE for key in keys)
                progress.blocked |= {key for key in keys if self._below_failure(key, progress)}
        return trials

    def _below_failure(self, key: str, progress: Progress) -> bool:
        parent = self.nodes[key].spec.parent_key
        while parent in self.nodes:
            if parent in progress.failures:
                return True
            parent = self.nodes[parent].spec.parent_key
        return False

    def _tell_next(self, arm: _Arm, progress: Progress) -> bool:
        """Tell the oldest open suggestion, if it has settled: results are told in the order of their numbers."""
        place = next((i for i, suggestion in enumerate(arm.suggestions) if suggestion.state == "open"), None)
        if place is None:
            return False
        outcome = self._outcome(arm, arm.suggestions[place], progress)
        if outcome is None:
            return False
        state, scores, why = outcome
        arm.study.tell(place, state, scores, why)
        arm.suggestions[place] = dataclasses.replace(arm.suggestions[place], state=state, scores=scores, why=why)
        return True

    def _outcome(self, arm: _Arm, suggestion: Suggestion, progress: Progress) -> tuple[State, tuple[float, ...], str] | None:
        """How a suggestion ended; None while it has not."""
        if suggestion.number in arm.refused:
            return "failed", (), arm.refused[suggestion.number]
        trials = arm.trials[suggestion.number]
        for trial in trials:
            for name, spec in trial.specs.items():
                failure = progress.failures.get(spec.key)
                if failure is not None:
                    return "failed", (), f"{name} ({failure.state}): {failure.headline}"
        if any(self.nodes[spec.key].state is not StageState.DONE for trial in trials for spec in trial.specs.values()):
            return None
        return "done", tuple(self._score(trials, objective) for objective in self._config.objectives), ""

    def _score(self, trials: list[Trial], objective: str) -> float:
        """The mean of a metric over a suggestion's seeds."""
        stage, _, metric = objective.partition(".")
        values = []
        for trial in trials:
            result = RunDir(self._root, trial.specs[stage].key).result()
            assert result is not None
            if metric not in result["metrics"]:
                raise UserError(f"search.objectives: {objective!r} is not there: {one_of(result['metrics'])} of {stage}")
            values.append(float(result["metrics"][metric]))
        return statistics.fmean(values)

    def _search_record(self) -> SearchRecord:
        told = [record for arm in self._arms for record in self._suggestion_records(arm)]
        return SearchRecord(config=self._config, arms=len(self._arms), suggestions=told)

    def _suggestion_records(self, arm: _Arm) -> list[SuggestionRecord]:
        first: dict[str, int] = {}
        records = []
        for suggestion in arm.suggestions:
            earlier = first.setdefault(repr(suggestion.values), suggestion.number)
            records.append(
                SuggestionRecord(
                    number=suggestion.number,
                    arm=arm.axes,
                    values=suggestion.values,
                    trials=tuple(trial.id for trial in arm.trials.get(suggestion.number, [])),
                    state=suggestion.state,
                    scores=dict(zip(self._config.objectives, suggestion.scores, strict=False)),
                    repeats=None if earlier == suggestion.number else earlier,
                    why=suggestion.why,
                )
            )
        return records

    def _write(self) -> None:
        if self.trials:
            write_sweep(self._root, self.record())


def _check_objectives(config: SearchConfig, trial: Trial) -> None:
    """Whether the trial has the stages that the objectives name."""
    for objective in config.objectives:
        stage = objective.partition(".")[0]
        if stage not in trial.specs:
            raise FieldError("search.objectives", objective, f"there is no stage {stage}: {one_of(trial.specs)}")


def outcome_line(record: SearchRecord) -> str:
    """How far a search has come, in one line."""
    states = [suggestion.state for suggestion in record.suggestions]
    total = record.config.trials * record.arms
    parts = [f"{states.count('done')} of {total} suggestions done"]
    if "failed" in states:
        parts.append(f"{states.count('failed')} failed")
    repeated = sum(suggestion.repeats is not None for suggestion in record.suggestions)
    if repeated:
        parts.append(f"{repeated} equal to an earlier one, which they share")
    return f"search: {', '.join(parts)}"
