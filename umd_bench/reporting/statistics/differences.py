"""By how much each arm differs from the baseline arm: means of differences taken seed by seed, with their intervals.

Arms of one seed share images, masks, noise and, if their shapes agree, initial weights. Shared noise cancels in a difference
within the seed, so its interval is narrower than the intervals of the two means suggest. The interval is valid even if nothing
is shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
from scipy import stats

from umd_bench.config.sweep.arms import arm_name
from umd_bench.reporting.notation.formatting import MISSING
from umd_bench.reporting.notation.metrics import direction
from umd_bench.reporting.statistics.summary import CONFIDENCE, Column, Estimate, Row, Summary, estimate, quantile

MARKS = {"better": "●", "worse": "○", "other": "≠"}  # LaTeX and every terminal have these signs
MAX_LISTED = 6  # comparisons that a note names one by one


@dataclass(frozen=True)
class Difference:
    """An arm minus the baseline in one column, in the metric's own unit.

    ``paired`` estimates it over the seeds that both have. ``p`` is two-sided, for a true difference of 0, and ``p_holm``
    corrects it for the number of comparisons in the table. ``verdict`` is empty if the interval includes 0, else ``better`` or
    ``worse`` by the metric's direction, or ``other`` if it has none. With one seed, or if both arms use the ``same`` runs,
    there is no test, and both p are None.
    """

    paired: Estimate
    p: float | None = None
    p_holm: float | None = None
    verdict: str = ""
    same: bool = False


@dataclass(frozen=True)
class Differences:
    """The differences of each arm of ``summary`` except ``baseline``; a column without a common seed is left out."""

    baseline: str
    summary: Summary
    rows: tuple[tuple[Row, dict[Column, Difference]], ...]
    notes: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """Full precision, one row per arm and column: the axes, baseline, stage, metric, ``mean``, ``half95``, ``n``, ...

        ``excludes_0``, ``verdict`` and both p are empty if there was no test.
        """
        dtypes = {"mean": "Float64", "half95": "Float64", "n": "Int64", "excludes_0": "boolean"}
        dtypes |= {"verdict": "string", "p": "Float64", "p_holm": "Float64", "same_runs": "boolean"}
        rows = []
        for arm, by_column in self.rows:
            for column in self.summary.columns:
                row = {**arm.axes, "baseline": self.baseline}
                row |= {"stage": column.stage, "metric": column.metric, "variant": column.variant, "n": 0}
                one = by_column.get(column)
                if one is not None:
                    row |= {"mean": one.paired.mean, "half95": one.paired.half, "n": one.paired.n, "same_runs": one.same}
                if one is not None and one.p is not None:
                    row |= {"excludes_0": one.verdict != "", "verdict": one.verdict, "p": one.p, "p_holm": one.p_holm}
                rows.append(row)
        names = [*self.summary.axes, "baseline", "stage", "metric", "variant", *dtypes]
        return pd.DataFrame(rows, columns=names, dtype=object).astype(dtypes)


def compare_with_baseline(summary: Summary) -> Differences | None:
    """Every other arm minus the summary's baseline arm; None if it has none."""
    baseline = summary.baseline
    if baseline is None:
        return None
    runs = {trial.id: (trial.seed, trial.stages) for trial in summary.sweep.trials}
    names = {trial.id: arm_name(trial.axes) for trial in summary.sweep.trials}
    rows: list[tuple[Row, dict[Column, Difference]]] = []
    for arm in summary.arms:
        if arm is baseline:
            continue
        by_column = {}
        for column in summary.columns:
            ours, theirs = _by_seed(arm, column), _by_seed(baseline, column)
            seeds = [seed for seed in ours if seed in theirs]
            if seeds:
                keys = [{runs[trial][0]: runs[trial][1].get(column.stage) for trial in row.trials} for row in (arm, baseline)]
                same = all(keys[0][seed] == keys[1][seed] for seed in seeds)
                by_column[column] = difference_of(
                    [ours[s] - theirs[s] for s in seeds], seeds, direction(column.metric), same=same
                )
        rows.append((arm, by_column))
    tested = [(place, column, one.p) for place, (_, row) in enumerate(rows) for column, one in row.items() if one.p is not None]
    for (place, column, _), p in zip(tested, holm([p for *_, p in tested]), strict=True):
        rows[place][1][column] = replace(rows[place][1][column], p_holm=p)
    name = names[baseline.trials[0]]
    labels = [names[arm.trials[0]] for arm, _ in rows]
    return Differences(name, summary, tuple(rows), tuple(_notes(name, summary, labels, [by_column for _, by_column in rows])))


def difference_of(values: Sequence[float], seeds: Sequence[int], better: str, *, same: bool = False) -> Difference:
    """The difference with these ``values``, one per seed of ``seeds``; ``better`` is ``up``, ``down`` or empty."""
    paired = estimate(values, seeds)
    if paired.half is None or same:
        return Difference(paired, same=same)
    error = paired.half / quantile(paired.n)
    p = 2 * float(stats.t.sf(abs(paired.mean) / error, paired.n - 1)) if error > 0 else float(paired.mean == 0)
    if abs(paired.mean) <= paired.half:
        return Difference(paired, p)
    if not better:
        return Difference(paired, p, verdict="other")
    return Difference(paired, p, verdict="better" if (paired.mean > 0) == (better == "up") else "worse")


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for their number by Holm's step-down method (Scandinavian Journal of Statistics 6, 65-70, 1979).

    If every comparison with a corrected value up to 0.05 is called different, the chance that any such call is wrong is at most
    5%, whether or not the comparisons depend on each other.
    """
    if not p:
        return []
    from statsmodels.stats.multitest import multipletests  # takes a second to import

    corrected: list[float] = multipletests(p, method="holm")[1].tolist()
    return corrected


def _by_seed(row: Row, column: Column) -> dict[int, float]:
    estimate = row.estimates.get(column)
    return {} if estimate is None else dict(zip(estimate.seeds, estimate.values, strict=True))


def _notes(name: str, summary: Summary, labels: Sequence[str], rows: Sequence[Mapping[Column, Difference]]) -> list[str]:
    compared = [(label, column, one) for label, row in zip(labels, rows, strict=True) for column, one in row.items()]
    same = ", same: both arms share these runs" if any(one.same for *_, one in compared) else ""
    notes = [
        f"Each arm less {name}, seed by seed: mean ± half-width of the 95% Student t interval of these differences over the "
        f"training seeds that both have. {MISSING}: fewer than two{same}."
    ]
    signs = [f"{MARKS['better']} better", f"{MARKS['worse']} worse than {name} by the column's arrow"]
    if any(not direction(column.metric) for column in summary.columns):
        signs.append(f"{MARKS['other']} another value where no arrow says which is better")
    notes.append(f"{', '.join(signs)}: the interval leaves out 0.")
    tested = [(label, column, one) for label, column, one in compared if one.p is not None]
    if tested:
        marked = sum(one.verdict != "" for *_, one in tested)
        remaining = [f"{label} in {column.title}" for label, column, one in tested if (one.p_holm or 0) <= 1 - CONFIDENCE]
        where = "p_holm in differences.csv" if len(remaining) > MAX_LISTED else "; ".join(remaining)
        remain = f"{len(remaining)} of them ({where})" if remaining else "none"
        corrected = f" Holm's correction over all of them (Scand. J. Statist. 6, 1979) leaves {remain} at 5%." if marked else ""
        notes.append(
            f"The intervals are not corrected for their number. Were no arm different, about {len(tested) / 20:g} of these "
            f"{len(tested)} comparisons would be marked by chance, often several at once, as all share {name}; "
            f"{marked or 'none'} {'are' if marked > 1 else 'is'}.{corrected}"
        )
    if summary.sweep.search is not None:
        notes.append("A search prefers arms by these numbers: the best of many look better than they are.")
    return notes
