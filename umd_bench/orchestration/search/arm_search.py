"""One combination of a search's axes: what was suggested for it, the trials these became, and how it is written down."""

from __future__ import annotations

import dataclasses
from typing import Any

from umd_bench.config.sweep.resolve import Trial
from umd_bench.config.sweep.search import SearchConfig
from umd_bench.orchestration.search.suggestions import Study, Suggestion
from umd_bench.store import SuggestionRecord


@dataclasses.dataclass
class Arm:
    """``trials`` and ``refused`` (why a suggestion makes no trial) are by the suggestion's number; ``retried`` are numbers."""

    config: SearchConfig
    axes: dict[str, Any]
    study: Study
    suggestions: list[Suggestion]
    trials: dict[int, list[Trial]] = dataclasses.field(default_factory=dict)
    refused: dict[int, str] = dataclasses.field(default_factory=dict)
    retried: set[int] = dataclasses.field(default_factory=set)

    def may_ask(self) -> bool:
        """Whether another suggestion is due: fewer than there are to be, and fewer than ``parallel`` open."""
        n_open = sum(suggestion.state == "open" for suggestion in self.suggestions)
        return len(self.suggestions) < self.config.trials and n_open < self.config.parallel

    def twin(self, suggestion: Suggestion) -> Suggestion | None:
        """An earlier suggestion of the same values."""
        earlier = self.suggestions[: suggestion.number]
        return next((other for other in earlier if repr(other.values) == repr(suggestion.values)), None)

    def shares(self, suggestion: Suggestion) -> bool:
        """Whether what becomes of an earlier suggestion becomes of this one: where trials are pruned, equal ones are one."""
        return self.config.pruner is not None and self.twin(suggestion) is not None

    def records(self) -> list[SuggestionRecord]:
        """Every suggestion as the sweep's record has it."""
        first: dict[str, int] = {}
        records = []
        for suggestion in self.suggestions:
            earlier = first.setdefault(repr(suggestion.values), suggestion.number)
            told = self.suggestions[earlier] if self.config.pruner is not None else suggestion
            records.append(
                SuggestionRecord(
                    number=suggestion.number,
                    arm=self.axes,
                    values=suggestion.values,
                    trials=tuple(trial.id for trial in self.trials.get(suggestion.number, [])),
                    state="pruned" if told.pruned_at is not None else suggestion.state,
                    scores=dict(zip(self.config.objectives, suggestion.scores, strict=False)),
                    repeats=None if earlier == suggestion.number else earlier,
                    why=suggestion.why,
                    rungs={rung.share: rung.value for rung in told.rungs},
                )
            )
        return records
