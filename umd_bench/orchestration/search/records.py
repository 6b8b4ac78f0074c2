"""The record of a search in its sweep's record, and its progress in one line."""

from __future__ import annotations

from umd_bench.orchestration.search.arm_search import ArmSearch
from umd_bench.store import SearchRecord, SuggestionRecord


def suggestion_records(arm: ArmSearch) -> list[SuggestionRecord]:
    """One record per suggestion, by number."""
    first: dict[str, int] = {}
    records = []
    for suggestion in arm.suggestions:
        earliest = first.setdefault(repr(suggestion.values), suggestion.number)
        decided = arm.suggestions[earliest] if arm.config.pruner is not None else suggestion
        records.append(
            SuggestionRecord(
                number=suggestion.number,
                arm=arm.axes,
                values=suggestion.values,
                trials=tuple(trial.id for trial in arm.trials.get(suggestion.number, [])),
                state="pruned" if decided.pruned_at is not None else suggestion.state,
                scores=dict(zip(arm.config.objectives, suggestion.scores, strict=False)),
                repeats=None if earliest == suggestion.number else earliest,
                why=suggestion.why,
                rungs={rung.share: rung.value for rung in decided.rungs},
            )
        )
    return records


def outcome_line(record: SearchRecord) -> str:
    """The progress of a search, in one line."""
    states = [suggestion.state for suggestion in record.suggestions]
    total = record.config.trials * record.arms
    parts = [f"{states.count('done')} of {total} suggestions done"]
    if "failed" in states:
        parts.append(f"{states.count('failed')} failed")
    if "pruned" in states:
        parts.append(f"{states.count('pruned')} pruned")
    repeated = sum(suggestion.repeats is not None for suggestion in record.suggestions)
    if repeated:
        parts.append(f"{repeated} equal to an earlier one, whose runs they share")
    return f"search: {', '.join(parts)}"
