"""A search as a source of trials: Optuna's suggestions become ordinary trials, and the search reports their results to Optuna.

A killed search can continue, since its suggestions are in ``results/sweeps/<name>/search.db`` and its results in run
directories.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import filelock

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Sweep, Trial
from umd_bench.config.sweep.search import SearchConfig
from umd_bench.orchestration.graph import Node, add_nodes, trial_records
from umd_bench.orchestration.preflight import check_trials
from umd_bench.orchestration.search.arm_search import ArmSearch, stage_keys
from umd_bench.orchestration.search.records import outcome_line, suggestion_records
from umd_bench.orchestration.search.rungs import checked_corners, with_rungs
from umd_bench.orchestration.search.suggestions import Study, Suggestion
from umd_bench.orchestration.trial_source import Changes, SweepProgress
from umd_bench.store import RunDir, SearchRecord, SweepRecord, sweep_dir, write_sweep

Admit = Callable[[Sequence[Trial]], dict[str, Node]]
"""Checks that trials can run and returns their graph, as :func:`umd_bench.orchestration.launch.prepare` does."""


class Search:
    """A :class:`~umd_bench.orchestration.trial_source.TrialSource` that locks other commands out until its ``with`` block ends.

    Each update first reports the rungs that trials have reached, and so prunes some trials. Then it tells Optuna the results,
    and asks for suggestions until ``parallel`` are open in each arm. A suggestion that failed or was pruned stays so in later
    commands.
    """

    grows = True

    def __init__(self, sweep: Sweep, root: Path, admit: Admit, *, data_root: Path | None = None) -> None:
        """Open the search, new or begun before.

        Raises :class:`UserError` if the search's space or objectives do not fit the trials, or if another
        command runs the search.
        """
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
            raise UserError(f"another command runs the search {sweep.config.name}: wait for it, or stop it") from None
        self._added: dict[str, Node] = {}  # stages that the next update adds
        self._dropped, self._held = set[str](), set[str]()
        self._updated = False
        self._arms = [self._open_arm(axes) for axes in sweep.arms]
        for arm in self._arms:
            for suggestion in arm.suggestions:
                self._add_trials(arm, suggestion)

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
        """The number of suggestions that are open or still to be made."""
        record = self._search_record()
        return self._config.trials * record.arms - sum(suggestion.state != "open" for suggestion in record.suggestions)

    @property
    def outcome(self) -> str:
        """The progress of the search, in one line."""
        return outcome_line(self._search_record())

    def update(self, progress: SweepProgress) -> Changes:
        """Report rungs, tell results, ask for suggestions; adds the stages of new trials and drops the stages of pruned ones.

        Decides nothing once the scheduler is stopping, since a stage that fails then may fail because of the stop.
        """
        if progress.stopped_because is None:
            changed = [self._advance(arm, progress) for arm in self._arms]
            if self._config.pruner is not None:
                needed = set[str]().union(*(arm.needed_keys() for arm in self._arms))
                self._dropped = set[str]().union(*(arm.pruned_keys() for arm in self._arms)) - needed
                self._held = set[str]().union(*(arm.held_keys(progress) for arm in self._arms))
            if any(changed) or not self._updated:
                self._write()
            if not self._updated:
                self._cancel_dropped_jobs()
            self._updated = True
        added, self._added = self._added, {}
        return Changes(added, self._dropped, self._held)

    def record(self) -> SweepRecord:
        """The sweep so far, for tables and tracking."""
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

    def _open_arm(self, axes: dict[str, Any]) -> ArmSearch:
        study = Study(self._folder / "search.db", self._study_name(axes), self._config)
        return ArmSearch(self._root, self._config, axes, study, study.suggestions())

    def _study_name(self, arm: dict[str, Any]) -> str:
        """A name with a hash of everything that the suggestions depend on; their number is not part of it.

        After a change of the space, the objectives or the trial, another study begins. The older one stays in the file.
        """
        first = {path: dimension.first for path, dimension in self._config.space.items()}
        stages = [{name: spec.key for name, spec in trial.specs.items()} for trial in self._sweep.suggested(arm, first)]
        identity = {"search": self._config.identity(), "arm": arm, "stages": stages}
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:12]
        return f"{self._sweep.config.name}-{digest}"

    def _advance(self, arm: ArmSearch, progress: SweepProgress) -> bool:
        """Report, tell and ask in one arm until nothing is left to do; returns whether anything changed."""
        changed = arm.report_rungs()
        while True:
            if arm.may_ask():
                arm.suggestions.append(arm.study.ask(functools.partial(self._has_result, arm)))
                self._add_trials(arm, arm.suggestions[-1])
            elif not arm.tell_oldest_open(progress):
                return changed
            changed = True

    def _add_trials(self, arm: ArmSearch, suggestion: Suggestion) -> None:
        """Make a suggestion's trials. Add their stages to the graph if the suggestion is open or has a retried stage."""
        number = suggestion.number
        try:
            trials = self._sweep.suggested(arm.axes, suggestion.values)
            check_trials(trials, self._data_root)
        except UserError as error:
            arm.refused[number] = str(error)
            return
        if not suggestion.had_result:
            trials = [with_rungs(self._config, trial) for trial in trials]
        arm.trials[number] = trials
        if suggestion.state in ("done", "failed") and any(RunDir(self._root, key).was_retried() for key in stage_keys(trials)):
            arm.retried.add(number)
        settled = suggestion.state != "open" or suggestion.pruned_at is not None or arm.follows_another(suggestion)
        if not settled or number in arm.retried:
            admitted = self._admit(trials)
            for trial in trials:
                for name in self._config.rung_stages.keys() & trial.specs.keys():
                    admitted[trial.specs[name].key].rung = True
            add_nodes(self._root, self._added, admitted)

    def _has_result(self, arm: ArmSearch, values: dict[str, Any]) -> bool:
        """Whether all results of a new suggestion exist already, and no earlier suggestion has the stages that give its scores.

        Such a suggestion costs nothing, so it is not pruned. Scores that this search computes do not count, since it depends on
        the timing whether they exist already.
        """
        if self._config.pruner is None:
            return False
        try:
            trials = self._sweep.suggested(arm.axes, values)
        except UserError:
            return False
        scored = {trial.specs[objective.partition(".")[0]].key for trial in trials for objective in self._config.objectives}
        own = stage_keys(trial for other in self._arms for made in other.trials.values() for trial in made)
        return not scored & own and all(RunDir(self._root, key).result() is not None for key in stage_keys(trials))

    def _cancel_dropped_jobs(self) -> None:
        """End the jobs of pruned trials that a killed command could not end itself."""
        if self._dropped:
            from umd_bench.orchestration.detach import cancel_jobs

            cancel_jobs(self._root, self._dropped)

    def _search_record(self) -> SearchRecord:
        suggestions = [record for arm in self._arms for record in suggestion_records(arm)]
        return SearchRecord(config=self._config, arms=len(self._arms), suggestions=suggestions)

    def _write(self) -> None:
        if self.trials:
            write_sweep(self._root, self.record())
