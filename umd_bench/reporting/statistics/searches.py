"""A search's own table: suggestions with hyperparameters and scores, best first, and which are on the Pareto front.

The sweep's table beside it lists every trial like any sweep's. Scores are means over the seeds, and the best of many look
better than they are: the notes say so.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import rich.box
import rich.table

from umd_bench.config.sweep.pruning import percent
from umd_bench.reporting.frames.long_frame import axis_columns
from umd_bench.reporting.frames.naming import axis_value, header, is_percent, number
from umd_bench.reporting.statistics.notes import score_notes, sweep_notes
from umd_bench.reporting.statistics.summary import Estimate, Summary, estimate
from umd_bench.store import SearchRecord, SuggestionRecord

BEST = 10  # rows of a table for people, where the front has fewer
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
    """One distinct suggestion that has scores: ``front`` tells whether none of its arm is better in every objective."""

    suggestion: SuggestionRecord
    front: bool
    estimates: dict[str, Estimate]


@dataclass(frozen=True)
class SearchSummary:
    """What a search found; ``ranked`` is best first, the front before the rest, ``columns`` path -> column of what varied."""

    search: SearchRecord
    columns: dict[str, str]
    ranked: tuple[Ranked, ...]
    notes: tuple[str, ...]

    @property
    def objectives(self) -> tuple[str, ...]:
        """``stage.metric`` each."""
        return tuple(self.search.config.objectives)

    def best(self) -> tuple[Ranked, ...]:
        """The front, and the next best where it has fewer than ten."""
        return self.ranked[: max(BEST, sum(row.front for row in self.ranked))]

    def frame(self) -> pd.DataFrame:
        """Every suggestion in full precision: number, state, front, what varied, the objectives, rungs, repeats, why."""
        on_front = {(_key(row.suggestion), row.suggestion.number) for row in self.ranked if row.front}
        rows = []
        for s in self.search.suggestions:
            shared = s.number if s.repeats is None else s.repeats
            rows.append(
                {
                    "number": s.number,
                    "state": s.state,
                    "front": (_key(s), shared) in on_front,
                    **{column: {**s.arm, **s.values}.get(path) for path, column in self.columns.items()},
                    **{objective: s.scores.get(objective) for objective in self.objectives},
                    **({"pruned_at": s.pruned_at} if self.search.config.pruner is not None else {}),
                    **{name: s.rungs.get(share) for share, name in self._rungs().items()},
                    "repeats": s.repeats,
                    "why": s.why,
                }
            )
        return pd.DataFrame(rows, dtype=object)

    def _rungs(self) -> dict[float, str]:
        """Columns of what the pruner's metric was at each rung, by its share."""
        config = self.search.config
        return {share: f"{rung}.{config.pruned_by[1]}" for rung, share in config.rung_stages.items()}


def summarize_search(summary: Summary) -> SearchSummary | None:
    """The search of a summarized sweep; None where the sweep has none."""
    search = summary.sweep.search
    if search is None:
        return None
    distinct = [s for s in search.suggestions if s.state == "done" and s.repeats is None]
    by_arm: dict[str, list[SuggestionRecord]] = {}
    for suggestion in distinct:
        by_arm.setdefault(_key(suggestion), []).append(suggestion)
    signs = [1.0 if direction == "maximise" else -1.0 for direction in search.config.objectives.values()]
    ranked = []
    for arm in by_arm.values():
        points = [[sign * s.scores[o] for sign, o in zip(signs, search.config.objectives, strict=True)] for s in arm]
        front = pareto_front(points)
        rows = [Ranked(s, place in front, _estimates(summary, search, s)) for place, s in enumerate(arm)]
        ranked += [row for _, row in sorted(zip(points, rows, strict=True), key=lambda pair: (not pair[1].front, -pair[0][0]))]
    return SearchSummary(search, axis_columns(list(summary.sweep.axes)), tuple(ranked), tuple(_notes(summary, search)))


def pareto_front(points: Sequence[Sequence[float]]) -> set[int]:
    """Which points no other is at least as good as in every coordinate and better in one; more is better."""
    return {
        i
        for i, point in enumerate(points)
        if not any(
            all(a >= b for a, b in zip(other, point, strict=True)) and any(a > b for a, b in zip(other, point, strict=True))
            for other in points
        )
    }


def search_cells(found: SearchSummary) -> pd.DataFrame:
    """The best suggestions as text: number, front, what varied, the objectives."""
    several = len(found.objectives) > 1
    names = ["#", *(["front"] if several else []), *found.columns.values(), *map(_header, found.objectives)]
    rows = []
    for row in found.best():
        varied = {**row.suggestion.arm, **row.suggestion.values}
        scores = [_score(objective, row.estimates[objective]) for objective in found.objectives]
        mark = [FRONT_MARK if row.front else ""] if several else []
        rows.append([str(row.suggestion.number), *mark, *(axis_value(varied.get(path)) for path in found.columns), *scores])
    return pd.DataFrame(rows, columns=names, dtype="string")


def search_terminal(found: SearchSummary, title: str) -> rich.table.Table:
    """:func:`search_cells` for the terminal."""
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    cells = search_cells(found)
    for name in map(str, cells):
        table.add_column(name, justify="center" if name == "front" else "right", overflow="fold")
    for row, values in zip(found.best(), cells.itertuples(index=False), strict=True):
        table.add_row(*map(str, values), style=None if row.front else "dim")
    return table


def _key(suggestion: SuggestionRecord) -> str:
    return repr(suggestion.arm)


def _header(objective: str) -> str:
    stage, _, metric = objective.partition(".")
    return header(stage, metric)


def _score(objective: str, found: Estimate) -> str:
    return number(found.mean, found.half, percent=is_percent(objective.partition(".")[2]))


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
    """What a reader of the table needs: how it was searched, what became of the suggestions, what the scores are of."""
    config, suggestions = search.config, search.suggestions
    seeds = ", ".join(map(str, summary.sweep.seeds))
    each = f" for each of {search.arms} combinations of the axes" if search.arms > 1 else ""
    means = ", of which scores are means" if len(summary.sweep.seeds) > 1 else ""
    notes = [
        f"{config.trials} suggestions{each} by {_SAMPLERS[config.sampler]} (seed {config.seed}, parallel {config.parallel}): "
        f"{outcome(search)}; training seeds {seeds}{means}.",
        "Picked by the same numbers that are shown: run the best again with other seeds before comparing them with others.",
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
    return notes + score_notes(scored, [objective.partition(".")[2] for objective in config.objectives])


def outcome(search: SearchRecord) -> str:
    """``19 done, 1 failed, 4 pruned``, and how many equal an earlier one or are still to come."""
    states: Counter[str] = Counter(s.state for s in search.suggestions)
    told = [f"{states['done']} done", *(f"{states[state]} {state}" for state in ("failed", "pruned") if states[state])]
    open_still = search.config.trials * search.arms - sum(states[state] for state in ("done", "failed", "pruned"))
    told += [f"{open_still} still open"] if open_still else []
    repeated = sum(s.repeats is not None for s in search.suggestions)
    return ", ".join(told + ([f"{repeated} of them equal to an earlier one"] if repeated else []))


def finite(values: Sequence[Any]) -> bool:
    """Whether these are numbers that can stand on an axis."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
