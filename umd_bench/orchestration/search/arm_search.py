"""The search over one arm (one combination of the sweep's axes): its suggestions, their trials, and when each is settled
(has its final state)."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from umd_bench.config.errors import UserError, one_of
from umd_bench.config.sweep.resolve import Trial
from umd_bench.config.sweep.search import SearchConfig
from umd_bench.orchestration.search.rungs import measuring_spec, rung_value, trained_spec
from umd_bench.orchestration.search.suggestions import State, Study, Suggestion
from umd_bench.orchestration.trial_source import SweepProgress
from umd_bench.store import RunDir, StageState


@dataclasses.dataclass
class ArmSearch:
    """One study and its suggestions, by number.

    ``trials`` are the trials of each suggestion, one per seed. ``refused`` says why a suggestion makes no valid trial.
    ``retried`` are settled suggestions with a failed stage that a person has retried: the stage runs again, but the suggestion
    does not change.
    """

    root: Path
    config: SearchConfig
    axes: dict[str, Any]
    study: Study
    suggestions: list[Suggestion]
    trials: dict[int, list[Trial]] = dataclasses.field(default_factory=dict)
    refused: dict[int, str] = dataclasses.field(default_factory=dict)
    retried: set[int] = dataclasses.field(default_factory=set)

    def may_ask(self) -> bool:
        """Whether another suggestion is due: fewer than ``trials`` exist, and fewer than ``parallel`` are open."""
        n_open = sum(suggestion.state == "open" for suggestion in self.suggestions)
        return len(self.suggestions) < self.config.trials and n_open < self.config.parallel

    def earlier_equal(self, suggestion: Suggestion) -> Suggestion | None:
        """The first earlier suggestion with the same values, if any."""
        earlier = self.suggestions[: suggestion.number]
        return next((other for other in earlier if repr(other.values) == repr(suggestion.values)), None)

    def follows_another(self, suggestion: Suggestion) -> bool:
        """Whether the suggestion gets the outcome of an earlier one, as equal suggestions do in a search that prunes."""
        return self.config.pruner is not None and self.earlier_equal(suggestion) is not None

    def pruned_keys(self) -> set[str]:
        """The stages of all pruned suggestions."""
        return stage_keys(
            trial
            for suggestion in self.suggestions
            if suggestion.pruned_at is not None
            for trial in self.trials.get(suggestion.number, [])
        )

    def needed_keys(self) -> set[str]:
        """The stages of suggestions that are open and not pruned, and of retried ones."""
        return stage_keys(
            trial
            for suggestion in self.suggestions
            if (suggestion.state == "open" and suggestion.pruned_at is None and not self.follows_another(suggestion))
            or suggestion.number in self.retried
            for trial in self.trials.get(suggestion.number, [])
        )

    def held_keys(self, progress: SweepProgress) -> set[str]:
        """The trainings that have reached a rung which another seed of their suggestion has not reached yet."""
        held: set[str] = set()
        for suggestion in self.suggestions:
            trials, index = self.trials.get(suggestion.number, []), len(suggestion.rungs)
            if suggestion.state != "open" or suggestion.pruned_at is not None or suggestion.had_result or len(trials) < 2:
                continue
            if index < len(self.config.rung_stages) and not stage_keys(trials) & progress.failures.keys():
                values = [rung_value(self.root, self.config, trial, index) for trial in trials]
                arrived = [trial for trial, value in zip(trials, values, strict=True) if value is not None]
                if len(arrived) < len(trials):
                    held |= {trained_spec(self.config, trial).key for trial in arrived}
        return held

    def report_rungs(self) -> bool:
        """Report every rung that an open suggestion has reached with all its seeds; returns whether there was any."""
        reported = [self._report_rungs_of(suggestion.number) for suggestion in list(self.suggestions)]
        return any(reported)

    def tell_oldest_open(self, progress: SweepProgress) -> bool:
        """Tell the study the outcome of the oldest open suggestion; False if it has none yet. Later ones wait for it."""
        number = next((i for i, suggestion in enumerate(self.suggestions) if suggestion.state == "open"), None)
        if number is None:
            return False
        outcome = self._outcome(self.suggestions[number], progress)
        if outcome is None:
            return False
        state, scores, why = outcome
        self.study.tell(number, state, scores, why)
        self.suggestions[number] = dataclasses.replace(self.suggestions[number], state=state, scores=scores, why=why)
        return True

    def _report_rungs_of(self, number: int) -> bool:
        config, suggestion = self.config, self.suggestions[number]
        if config.pruner is None or suggestion.state != "open":
            return False
        if number in self.refused or self.follows_another(suggestion):
            return False
        reported = False
        while suggestion.pruned_at is None and len(suggestion.rungs) < len(config.pruner.rungs):
            index = len(suggestion.rungs)
            values = [rung_value(self.root, config, trial, index) for trial in self.trials[number]]
            known = [value for value in values if value is not None]
            if len(known) < len(values):
                break
            suggestion = self.suggestions[number] = self.study.report(number, statistics.fmean(known))
            reported = True
        return reported

    def _outcome(self, suggestion: Suggestion, progress: SweepProgress) -> tuple[State, tuple[float, ...], str] | None:
        """State, scores and reason of a suggestion that has ended; None if it has not."""
        number = suggestion.number
        if number in self.refused:
            return "failed", (), self.refused[number]
        equal = self.earlier_equal(suggestion)
        if equal is not None and self.follows_another(suggestion):  # the earlier one is settled already
            return equal.state, equal.scores, equal.why
        self._report_rungs_of(number)
        if self.suggestions[number].pruned_at is not None:
            return "pruned", (), ""
        trials = self.trials[number]
        if not stage_keys(trials) <= progress.nodes.keys():  # just suggested: not in the graph yet
            return None
        for trial in trials:
            for name, spec in trial.specs.items():
                failure = progress.failures.get(spec.key)
                if failure is not None:
                    if self._may_still_be_pruned(number, progress):
                        return None
                    return "failed", (), f"{name} ({failure.state}): {failure.headline}"
        if any(progress.nodes[key].state is not StageState.DONE for key in stage_keys(trials)):
            return None
        return "done", tuple(self._score(trials, objective) for objective in self.config.objectives), ""

    def _may_still_be_pruned(self, number: int, progress: SweepProgress) -> bool:
        """Whether every seed of a suggestion with a failure has reached, or can reach, the next rung.

        If so, the suggestion stays open until that rung. Otherwise the timing would decide whether it counts as failed or as
        pruned.
        """
        config, index = self.config, len(self.suggestions[number].rungs)
        if config.pruner is None or index == len(config.pruner.rungs):
            return False
        lost = progress.failures.keys() | progress.blocked
        return all(
            rung_value(self.root, config, trial, index) is not None or measuring_spec(config, trial, index).key not in lost
            for trial in self.trials[number]
        )

    def _score(self, trials: list[Trial], objective: str) -> float:
        """An objective's mean over a suggestion's seeds."""
        stage, _, metric = objective.partition(".")
        values = []
        for trial in trials:
            result = RunDir(self.root, trial.specs[stage].key).result()
            assert result is not None
            if metric not in result["metrics"]:
                raise UserError(f"search.objectives: {stage} has no metric {objective!r}: {one_of(result['metrics'])}")
            values.append(float(result["metrics"][metric]))
        return statistics.fmean(values)


def stage_keys(trials: Iterable[Trial]) -> set[str]:
    """The keys of all stages of some trials."""
    return {spec.key for trial in trials for spec in trial.specs.values()}
