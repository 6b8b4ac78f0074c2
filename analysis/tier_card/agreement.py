"""The gate on agreement: does the tier order the methods as the published numbers do?

The measure is Kendall's tau-b between a column and the published numbers of the same methods at ImageNet-64, for each seed. No
interval was published, so neighbours in the published order that differ by less than 5% count as tied. With such ties tau-b
cannot reach 1; each row of the gate states the largest value that it can reach.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from scipy import stats

from analysis import published
from analysis.tier_card.numbers import BEST, GENERATE, OFFICIAL, Numbers, Shown, above_zero, listed, mean, rounded
from umd_bench.config.sweep.tier_card import Gate
from umd_bench.reporting.notation.metrics import is_extrapolated
from umd_bench.reporting.statistics.summary import estimate

TABLE = "imagenet64"
TIE = 0.05  # relative difference


def agreement(numbers: Numbers, columns: Sequence[tuple[str, str]], judged: Sequence[tuple[str, str]]) -> Gate:
    """The gate. Each (stage, metric) of ``columns`` with a published counterpart has a row; the ``judged`` ones decide."""
    bound = (
        f"In {listed(Shown(*column).title for column in judged)}, the 95% interval over seeds of Kendall's tau-b with the "
        f"published order lies above 0. Published numbers within {TIE:.0%} of their neighbour count as tied, since no interval "
        "was published."
    )
    table = {row.method: row.numbers for row in published.load(TABLE).rows}
    rows: list[dict[str, str | float | int | None]] = []
    failed, unknown = [], [Shown(*column).title for column in judged if column not in columns]
    for column in columns:
        name = counterpart(*column)
        theirs = {} if name is None else {m: n[name] for m, n in table.items() if name in n and m in numbers.methods}
        shown = Shown(*column)
        taus = seed_taus(numbers, column, ranks(theirs))
        if len(theirs) < 3 or not taus:
            unknown += [shown.title] if column in judged else []
            continue
        one = estimate(list(taus.values()), list(taus))
        ours = {m: value for m in theirs if (value := mean(numbers.of_method(*column, m))) is not None}
        reachable = tau(list(ranks(theirs).values()), list(theirs.values()))
        rows.append(
            {
                "column": shown.title,
                "published order": order(ranks(theirs), higher_is_better=shown.higher_is_better),
                "order here": order(ours, higher_is_better=shown.higher_is_better),
                "tau of each seed": ", ".join(f"{value:.2f}" for value in taus.values()),
                "mean tau": rounded(one.mean, 3),
                "± 95%": rounded(one.half, 3),
                "at most": rounded(reachable, 3),
                "judged": "yes" if column in judged else "no",
            }
        )
        if column in judged:
            outcome = above_zero(one)
            failed += [shown.title] if outcome is False else []
            unknown += [shown.title] if outcome is None else []
    if failed:
        return Gate(
            verdict="fail", bound=bound, found=f"The interval does not lie above 0 in {listed(failed)}.", rows=tuple(rows)
        )
    if unknown or not judged:
        found = f"A second seed, or a third method with a published number, is missing in {listed(unknown)}."
        if not judged:
            found = "The sweep has neither a few-shot probe nor a Fréchet distance."
        return Gate(verdict="unknown", bound=bound, found=found, rows=tuple(rows))
    return Gate(verdict="pass", bound=bound, found="Every interval lies above 0.", rows=tuple(rows))


def counterpart(stage: str, metric: str) -> str | None:
    """The name of the published number that measures the same as the column, at another scale; None if there is none."""
    if stage in (OFFICIAL, BEST) and re.fullmatch(r"acc_\d+shot", metric):
        return "acc_100shot"
    if stage == GENERATE and (metric == "fid" or metric.startswith("fd_")) and not is_extrapolated(metric):
        return "fid"
    if stage == GENERATE and re.fullmatch(r"is(_.+)?", metric):
        return "is"
    return None


def ranks(numbers: Mapping[str, float]) -> dict[str, int]:
    """A rank for each published number, from the smallest; those within 5% of the next smaller one share its rank."""
    placed: dict[str, int] = {}
    rank, before = 0, None
    for method, value in sorted(numbers.items(), key=lambda item: item[1]):
        if before is not None and value - before >= TIE * value:
            rank += 1
        placed[method], before = rank, value
    return {method: placed[method] for method in numbers}


def seed_taus(numbers: Numbers, column: tuple[str, str], placed: Mapping[str, int]) -> dict[int, float]:
    """Seed -> Kendall's tau-b of the column with the published ranks; seeds that lack a method are left out."""
    taus = {}
    for seed in numbers.seeds:
        values = [numbers.of_method(*column, method).get(seed) for method in placed]
        known = [value for value in values if value is not None]
        if len(known) == len(placed) and known:
            taus[seed] = tau(list(placed.values()), known)
    return taus


def tau(placed: Sequence[float], values: Sequence[float]) -> float:
    """Kendall's tau-b; 0 if one of the two sequences has only equal values, and so no order."""
    found = float(stats.kendalltau(placed, values).statistic)
    return 0.0 if found != found else found


def order(numbers: Mapping[str, float], *, higher_is_better: bool) -> str:
    """``mae > umd > dit = maskdit``: the best first."""
    by_value: dict[float, list[str]] = {}
    for method, value in sorted(numbers.items(), key=lambda item: item[1], reverse=higher_is_better):
        by_value.setdefault(value, []).append(method)
    return " > ".join(" = ".join(methods) for methods in by_value.values())
