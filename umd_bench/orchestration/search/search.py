"""A search as part of a sweep: suggestions become ordinary trials in the runner's graph, and their results are told back.

Everything that matters survives a kill: the suggestions stand in ``results/sweeps/<name>/search.db``, the results in run
directories. What a suggestion was made of is in :mod:`umd_bench.orchestration.search.suggestions`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from umd_bench.config.errors import UserError, one_of
from umd_bench.config.sweep.resolve import Sweep, Trial
from umd_bench.config.sweep.search import SearchConfig
from umd_bench.orchestration.graph import Node, add_nodes, trial_records
from umd_bench.orchestration.preflight import check_trials
from umd_bench.orchestration.scheduler import Progress
from umd_bench.orchestration.search.arm_search import Arm
from umd_bench.orchestration.search.rungs import checked_corners, measuring_spec, rung_value, trained_spec, with_rungs
from umd_bench.orchestration.search.suggestions import State, Study, Suggestion
from umd_bench.store import RunDir, SearchRecord, StageState, SweepRecord, sweep_dir, write_sweep

Admit = Callable[[Sequence[Trial]], dict[str, Node]]
"""Proves that trials can run and gives their graph, as :func:`umd_bench.orchestration.launch.prepare` does."""


class Search:
    """Suggests trials for a sweep while its runner works; a context manager that keeps other commands from the same search.

    ``nodes`` is the graph of all that is not settled yet, and the one that the runner has to be given: :meth:`advance` adds to
    it. ``dropped`` are keys of stages that pruned suggestions had; the runner takes them out of the graph and ends what runs.
    A stage fails at most once a command; a suggestion that was told as failed, or was pruned, stays so.
    """

    def __init__(self, sweep: Sweep, root: Path, admit: Admit, *, data_root: Path | None = None) -> None:
        """Open the search, or go on with it. Raises :class:`UserError` for a space or objectives that no trial can have, and
        while another command is at work on the search."""
        assert sweep.config.search is not None
        self._sweep, self._root, self._admit, self._data_root = sweep, root, admit, data_root
        self._config: SearchConfig = sweep.config.search
        corners = checked_corners(sweep)
        check_trials(corners, data_root)
        admit(corners)
        self._folder = sweep_dir(root, sweep.config.name)
        self._lock = filelock.FileLock(self._folder / "search.lock", thread_local=False)
        try:
            self._lock.acquire(blocking=False)
        except filelock.Timeout:
            raise UserError(f"another command is at work on the search {sweep.config.name}: wait for it, or stop it") from None
        self.nodes: dict[str, Node] = {}
        self.dropped: set[str] = set()
        self._arms = [self._open_arm(arm) for arm in sweep.arms]
        for arm in self._arms:
            for suggestion in arm.suggestions:
                self._take_up(arm, suggestion)
        self.advance(Progress(self.nodes, reused=0, dropped=self.dropped))
        self._write()
        self._take_back_jobs()

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
    def n_left(self) -> int:
        """How many suggestions are open or still to be made."""
        record = self._search_record()
        return self._config.trials * record.arms - sum(suggestion.state != "open" for suggestion in record.suggestions)

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
            for suggestion in list(arm.suggestions):
                moved = self._race(arm, suggestion.number) or moved
            while True:
                if arm.may_ask():
                    arm.suggestions.append(arm.study.ask(functools.partial(self._has_result, arm)))
                    added += self._take_up(arm, arm.suggestions[-1], progress)
                elif not self._tell_next(arm, progress):
                    break
                moved = True
        if self._config.pruner is not None:
            progress.held = self._ahead(progress)
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

    def _open_arm(self, axes: dict[str, Any]) -> Arm:
        study = Study(self._folder / "search.db", self._study_name(axes), self._config)
        return Arm(self._config, axes, study, study.suggestions())

    def _study_name(self, arm: dict[str, Any]) -> str:
        """Names what the suggestions depend on: another space, objective or trial is another study, more trials are the same.

        An older study stays in the file, and its results in their run directories.
        """
        first = {path: dimension.first for path, dimension in self._config.space.items()}
        stages = [{name: spec.key for name, spec in trial.specs.items()} for trial in self._sweep.suggested(arm, first)]
        identity = {"search": self._config.identity(), "arm": arm, "stages": stages}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self._sweep.config.name}-{digest}"

    def _take_up(self, arm: Arm, suggestion: Suggestion, progress: Progress | None = None) -> list[Trial]:
        """Make a suggestion's trials; those of an open one, and what a person asked another try for, go into the graph."""
        number = suggestion.number
        try:
            trials = self._sweep.suggested(arm.axes, suggestion.values)
            check_trials(trials, self._data_root)
        except UserError as error:
            arm.refused[number] = str(error)
            return []
        if not suggestion.finished:
            trials = [with_rungs(self._config, trial) for trial in trials]
        arm.trials[number] = trials
        keys = {spec.key for trial in trials for spec in trial.specs.values()}
        settled = suggestion.state != "open" or suggestion.pruned_at is not None or arm.shares(suggestion)
        if suggestion.state in ("done", "failed") and any(RunDir(self._root, key).was_retried() for key in keys):
            arm.retried.add(number)
        if not settled or number in arm.retried:
            self.dropped -= keys
            admitted = self._admit(trials)
            for trial in trials:
                for name in self._config.rung_stages.keys() & trial.specs.keys():
                    admitted[trial.specs[name].key].rung = True
            add_nodes(self._root, self.nodes, admitted)
            if progress is not None:
                progress.reused += sum(self.nodes[key].state is StageState.DONE for key in keys)
                progress.blocked |= {key for key in keys if self._below_failure(key, progress)}
        return trials

    def _has_result(self, arm: Arm, values: dict[str, Any]) -> bool:
        """Whether a suggestion that is being made has all of its results, none of them from another suggestion of this search.

        Such a one costs nothing and is not pruned. What this search makes itself may be there or not, by the timing.
        """
        if self._config.pruner is None:
            return False
        try:
            trials = self._sweep.suggested(arm.axes, values)
        except UserError:
            return False
        keys = {spec.key for trial in trials for spec in trial.specs.values()}
        scored = {trial.specs[objective.partition(".")[0]].key for trial in trials for objective in self._config.objectives}
        others = {
            spec.key
            for other in self._arms
            for made in other.trials.values()
            for trial in made
            for spec in trial.specs.values()
        }
        return not scored & others and all(RunDir(self._root, key).result() is not None for key in keys)

    def _race(self, arm: Arm, number: int) -> bool:
        """Decide at the rungs that a suggestion has come to, each seed's trial of it; whether there were any."""
        config, suggestion = self._config, arm.suggestions[number]
        if config.pruner is None or suggestion.state != "open" or number in arm.refused or arm.shares(suggestion):
            return False
        moved = False
        while suggestion.pruned_at is None and len(suggestion.rungs) < len(config.pruner.rungs):
            place = len(suggestion.rungs)
            values = [rung_value(self._root, config, trial, place) for trial in arm.trials[number]]
            known = [value for value in values if value is not None]
            if len(known) < len(values):
                break
            suggestion = arm.suggestions[number] = arm.study.reach(number, statistics.fmean(known))
            moved = True
        if moved and suggestion.pruned_at is not None:
            self._drop(arm, number)
        return moved

    def _may_still_be_pruned(self, arm: Arm, number: int, progress: Progress) -> bool:
        """Whether each seed's trial of a suggestion, one of which has failed, came or may come to its next rung.

        Then that is waited for: which of the two is known first must not decide what the suggestion counts as.
        """
        config, place = self._config, len(arm.suggestions[number].rungs)
        if config.pruner is None or place == len(config.pruner.rungs):
            return False
        lost = progress.failures.keys() | progress.blocked
        return all(
            rung_value(self._root, config, trial, place) is not None or measuring_spec(config, trial, place).key not in lost
            for trial in arm.trials[number]
        )

    def _ahead(self, progress: Progress) -> set[str]:
        """Keys of trainings that came to a rung at which another seed of their suggestion is still to arrive."""
        ahead: set[str] = set()
        for arm in self._arms:
            for suggestion in arm.suggestions:
                trials, place = arm.trials.get(suggestion.number, []), len(suggestion.rungs)
                if suggestion.state != "open" or suggestion.pruned_at is not None or suggestion.finished or len(trials) < 2:
                    continue
                keys = {spec.key for trial in trials for spec in trial.specs.values()}
                if place < len(self._config.rung_stages) and not keys & progress.failures.keys():
                    values = [rung_value(self._root, self._config, trial, place) for trial in trials]
                    there = [trial for trial, value in zip(trials, values, strict=True) if value is not None]
                    ahead |= {trained_spec(self._config, trial).key for trial in there if len(there) < len(trials)}
        return ahead

    def _drop(self, arm: Arm, number: int) -> None:
        """Have the stages of a pruned suggestion ended, but those that another still needs."""
        own = {spec.key for trial in arm.trials[number] for spec in trial.specs.values()}
        self.dropped |= own - self._needed()

    def _needed(self) -> set[str]:
        """Keys of the stages of suggestions that are open and not pruned, or that run again."""
        return {
            spec.key
            for arm in self._arms
            for suggestion in arm.suggestions
            if (suggestion.state == "open" and suggestion.pruned_at is None and not arm.shares(suggestion))
            or suggestion.number in arm.retried
            for trial in arm.trials.get(suggestion.number, [])
            for spec in trial.specs.values()
        }

    def _take_back_jobs(self) -> None:
        """End jobs of stages that were pruned by a command that was killed before it could."""
        pruned = [
            (arm, suggestion.number)
            for arm in self._arms
            for suggestion in arm.suggestions
            if suggestion.pruned_at is not None and suggestion.number in arm.trials
        ]
        keys = {spec.key for arm, number in pruned for trial in arm.trials[number] for spec in trial.specs.values()}
        if keys := keys - self._needed():
            from umd_bench.orchestration.detach import cancel_jobs

            cancel_jobs(self._root, keys)

    def _below_failure(self, key: str, progress: Progress) -> bool:
        parent = self.nodes[key].spec.parent_key
        while parent in self.nodes:
            if parent in progress.failures:
                return True
            parent = self.nodes[parent].spec.parent_key
        return False

    def _tell_next(self, arm: Arm, progress: Progress) -> bool:
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

    def _outcome(self, arm: Arm, suggestion: Suggestion, progress: Progress) -> tuple[State, tuple[float, ...], str] | None:
        """How a suggestion ended; None while it has not."""
        if suggestion.number in arm.refused:
            return "failed", (), arm.refused[suggestion.number]
        twin = arm.twin(suggestion) if arm.shares(suggestion) else None
        if twin is not None:  # told before, as its number is lower
            return twin.state, twin.scores, twin.why
        self._race(arm, suggestion.number)
        if arm.suggestions[suggestion.number].pruned_at is not None:
            return "pruned", (), ""
        trials = arm.trials[suggestion.number]
        for trial in trials:
            for name, spec in trial.specs.items():
                failure = progress.failures.get(spec.key)
                if failure is not None:
                    if self._may_still_be_pruned(arm, suggestion.number, progress):
                        return None
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
        told = [record for arm in self._arms for record in arm.records()]
        return SearchRecord(config=self._config, arms=len(self._arms), suggestions=told)

    def _write(self) -> None:
        if self.trials:
            write_sweep(self._root, self.record())


def outcome_line(record: SearchRecord) -> str:
    """How far a search has come, in one line."""
    states = [suggestion.state for suggestion in record.suggestions]
    total = record.config.trials * record.arms
    parts = [f"{states.count('done')} of {total} suggestions done"]
    if "failed" in states:
        parts.append(f"{states.count('failed')} failed")
    if "pruned" in states:
        parts.append(f"{states.count('pruned')} pruned")
    repeated = sum(suggestion.repeats is not None for suggestion in record.suggestions)
    if repeated:
        parts.append(f"{repeated} equal to an earlier one, which they share")
    return f"search: {', '.join(parts)}"
