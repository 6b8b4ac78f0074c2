"""A search's suggestions with hyperparameters and scores, best first, and which of them are on the Pareto front.

As for any other sweep, the summary (summary.py) lists every trial. Scores are means over seeds. The best of many suggestions
look better than they are, and the notes say so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import pandas as pd

from umd_bench.config.sweep.pruning import percent
from umd_bench.reporting.frames.sweep_frames import axis_columns
from umd_bench.reporting.statistics.notes import score_notes, split_notes, sweep_notes
from umd_bench.reporting.statistics.summary import Estimate, Summary, estimate
from umd_bench.store import SearchRecord, SuggestionRecord

BEST = 10  # rows of an arm in the printed table (the CSV has all); more if the arm's front is larger
FRONT_MARK = "•"
_SAMPLERS = {
    "random": "random search",
    "tpe": "a tree-structured Parzen estimator",
    "gp": "a Gaussian process",
    "nsga2": "NSGA-II",
}
_PRUNERS = {"median": "the median", "successive_halving": "successive halving", "hyperband": "Hyperband"}


@dataclass(frozen=True)
class Ranked:
    """One distinct suggestion that has scores. ``front``: whether it is on the Pareto front of its arm."""

    suggestion: SuggestionRecord
    front: bool
    estimates: dict[str, Estimate]


@dataclass(frozen=True)
class SearchSummary:
    """A search's suggestions.

    ``ranked`` goes arm by arm. Within an arm, the front comes first, then the others; both are sorted by the first objective,
    best first. ``columns`` maps the path of each axis and hyperparameter to its column.
    """

    record: SearchRecord
    columns: dict[str, str]
    ranked: tuple[Ranked, ...]
    notes: tuple[str, ...]

    @property
    def objectives(self) -> tuple[str, ...]:
        """The objectives, each ``stage.metric``."""
        return tuple(self.record.config.objectives)

    def best(self) -> tuple[Ranked, ...]:
        """Of each arm the front, and its next best suggestions up to ten in all."""
        arms = (list(rows) for _, rows in groupby(self.ranked, key=lambda row: _key(row.suggestion)))
        return tuple(row for rows in arms for row in rows[: max(BEST, sum(row.front for row in rows))])

    def frame(self) -> pd.DataFrame:
        """Every suggestion in full precision: number, state, front, hyperparameters, objectives, rungs, repeats, why."""
        on_front = {(_key(row.suggestion), row.suggestion.number) for row in self.ranked if row.front}
        rows = []
        for s in self.record.suggestions:
            shared = s.number if s.repeats is None else s.repeats
            rows.append(
                {
                    "number": s.number,
                    "state": s.state,
                    "front": (_key(s), shared) in on_front,
                    **{column: {**s.arm, **s.values}.get(path) for path, column in self.columns.items()},
                    **{objective: s.scores.get(objective) for objective in self.objectives},
                    **({"pruned_at": s.pruned_at} if self.record.config.pruner is not None else {}),
                    **{name: s.rungs.get(share) for share, name in self._rungs().items()},
                    "repeats": s.repeats,
                    "why": s.why,
                }
            )
        return pd.DataFrame(rows, dtype=object)

    def _rungs(self) -> dict[float, str]:
        """Rung, as a share of the training -> column of the pruner's metric at that rung."""
        config = self.record.config
        return {share: f"{rung}.{config.pruned_by[1]}" for rung, share in config.rung_stages.items()}


def summarize_search(summary: Summary) -> SearchSummary | None:
    """The search of a summarized sweep; None if the sweep is no search."""
    record = summary.sweep.search
    if record is None:
        return None
    distinct = [s for s in record.suggestions if s.state == "done" and s.repeats is None]
    by_arm: dict[str, list[SuggestionRecord]] = {}
    for suggestion in distinct:
        by_arm.setdefault(_key(suggestion), []).append(suggestion)
    signs = [1.0 if direction == "maximise" else -1.0 for direction in record.config.objectives.values()]
    ranked = []
    for arm in by_arm.values():
        points = [[sign * s.scores[o] for sign, o in zip(signs, record.config.objectives, strict=True)] for s in arm]
        front = pareto_front(points)
        rows = [Ranked(s, place in front, _estimates(summary, record, s)) for place, s in enumerate(arm)]
        ranked += [row for _, row in sorted(zip(points, rows, strict=True), key=lambda pair: (not pair[1].front, -pair[0][0]))]
    return SearchSummary(record, axis_columns(list(summary.sweep.axes)), tuple(ranked), tuple(_notes(summary, record)))


def pareto_front(points: Sequence[Sequence[float]]) -> set[int]:
    """Indices of the points that no other point dominates.

    A point dominates another if it is at least as good in every coordinate and better in one; larger is better.
    """
    return {
        i
        for i, point in enumerate(points)
        if not any(
            all(a >= b for a, b in zip(other, point, strict=True)) and any(a > b for a, b in zip(other, point, strict=True))
            for other in points
        )
    }


def _key(suggestion: SuggestionRecord) -> str:
    return repr(suggestion.arm)


def _estimates(summary: Summary, search: SearchRecord, suggestion: SuggestionRecord) -> dict[str, Estimate]:
    long = summary.long
    own = long[long["trial"].isin(suggestion.trials)]
    estimates = {}
    for objective in search.config.objectives:
        stage, _, metric = objective.partition(".")
        values = own.loc[(own["stage"] == stage) & (own["metric"] == metric).fillna(False), "value"].astype("float64").tolist()
        estimates[objective] = estimate(values or [suggestion.scores[objective]])
    return estimates


def _notes(summary: Summary, search: SearchRecord) -> list[str]:
    """How the space was searched, how the suggestions ended, and what the scores were made from."""
    config, suggestions = search.config, search.suggestions
    seeds = ", ".join(map(str, summary.sweep.seeds))
    each = f" for each of {search.arms} combinations of the axes" if search.arms > 1 else ""
    trained = f"scores are means over training seeds {seeds}" if len(summary.sweep.seeds) > 1 else f"training seed {seeds}"
    notes = [
        f"{config.trials} suggestions{each} by {_SAMPLERS[config.sampler]} (seed {config.seed}, parallel {config.parallel}): "
        f"{count_outcomes(search)}; {trained}.",
        "The best suggestions were picked by the scores shown here, so these scores are too good. "
        "Run the best again with other seeds before you compare them with anything else.",
    ]
    if config.pruner is not None:
        stage, metric, direction = config.pruned_by
        at = Counter(s.pruned_at for s in suggestions if s.pruned_at is not None and s.repeats is None)
        counts = ", ".join(f"{count} at {percent(share)}% of the training" for share, count in sorted(at.items())) or "none"
        notes.append(f"Pruned by {_PRUNERS[config.pruner.kind]} of {stage}.{metric} ({direction}): {counts}.")
    if len(config.objectives) > 1:
        notes.append(
            f"{FRONT_MARK} on the Pareto front: no other suggestion of its arm is at least as good in all and better in one."
        )
    reasons = Counter(s.why for s in suggestions if s.state == "failed")
    notes += [f"Failed ({count}): {why}." for why, count in sorted(reasons.items())]
    done = summary.long[summary.long["state"] == "done"]
    stages = list(dict.fromkeys(objective.partition(".")[0] for objective in config.objectives))
    scored = done[done["stage"].isin(stages)]
    provenance = sweep_notes(scored, summary.sweep, stages, list(axis_columns(list(summary.sweep.axes)).values()))
    notes += provenance[1:] if len(summary.sweep.seeds) == 1 else provenance  # one seed has no interval to explain
    notes = [*split_notes(scored, stages), *notes]
    return notes + score_notes(scored, [objective.partition(".")[2] for objective in config.objectives])


def count_outcomes(search: SearchRecord) -> str:
    """``19 done, 1 failed, 4 pruned, 1 still open; among all suggestions, 2 equal to an earlier one``."""
    states: Counter[str] = Counter(s.state for s in search.suggestions)
    parts = [f"{states['done']} done", *(f"{states[state]} {state}" for state in ("failed", "pruned") if states[state])]
    open_still = search.config.trials * search.arms - sum(states[state] for state in ("done", "failed", "pruned"))
    parts += [f"{open_still} still open"] if open_still else []
    repeated = sum(s.repeats is not None for s in search.suggestions)
    return ", ".join(parts) + (f"; among all suggestions, {repeated} equal to an earlier one" if repeated else "")
