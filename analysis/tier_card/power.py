"""The gate on power: the smallest difference between two methods that a number of seeds can show.

A two-sided paired t-test at level 0.05 finds such a difference with probability 0.8. The standard deviation of the paired
differences is pooled over all pairs of methods.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from functools import cache

from analysis.tier_card.numbers import Numbers, Shown, listed, mean, rounded
from umd_bench.config.sweep.tier_card import Gate

LEVEL, POWER = 0.05, 0.8
SEEDS = (3, 5, 10)
JUDGED_SEEDS = 5
MAX_SHARE = 0.5  # of the gap between the best and the worst method


def power(numbers: Numbers, columns: Sequence[tuple[str, str]], judged: Sequence[tuple[str, str]]) -> Gate:
    """The gate for the ``judged`` (stage, metric) pairs, with a row for each of ``columns`` that several methods have."""
    bound = (
        f"{JUDGED_SEEDS} seeds can show a difference of half the gap between the best and the worst method, in "
        f"{listed(Shown(*column).title for column in judged)} (two-sided paired t-test, level {LEVEL}, power {POWER})."
    )
    rows: list[dict[str, str | float | int | None]] = []
    too_small, unknown = [], [Shown(*column).title for column in judged if column not in columns]
    for column in columns:
        shown, sd = Shown(*column), pooled_deviation(numbers, *column)
        means = [m for method in numbers.methods if (m := mean(numbers.of_method(*column, method))) is not None]
        if sd is None:
            if column in judged:
                unknown.append(shown.title)
            continue
        spread = max(means) - min(means)
        found = {n: smallest_difference(sd, n) for n in SEEDS}
        rows.append(
            {
                "column": shown.title,
                "sd of differences": rounded(sd * shown.factor, 3),
                **{f"{n} seeds show": rounded(found[n] * shown.factor, 3) for n in SEEDS},
                "best less worst": rounded(spread * shown.factor, 3),
                "judged": "yes" if column in judged else "no",
            }
        )
        if column in judged and found[JUDGED_SEEDS] > MAX_SHARE * spread:
            too_small.append(shown.title)
    if too_small:
        return Gate(
            verdict="fail", bound=bound, found=f"{JUDGED_SEEDS} seeds are too few for {listed(too_small)}.", rows=tuple(rows)
        )
    if unknown or not judged:
        found_ = f"Two methods with two common seeds are missing in {listed(unknown) if judged else 'every judged column'}."
        return Gate(verdict="unknown", bound=bound, found=found_, rows=tuple(rows))
    return Gate(
        verdict="pass", bound=bound, found=f"{JUDGED_SEEDS} seeds can show it in every judged column.", rows=tuple(rows)
    )


def pooled_deviation(numbers: Numbers, stage: str, metric: str) -> float | None:
    """The standard deviation of paired differences between two methods, in the metric's unit, pooled over all pairs.

    Pairs with fewer than two common seeds are left out; None if no pair is left.
    """
    variances = []
    for one, other in itertools.combinations(numbers.methods, 2):
        ours, theirs = numbers.of_method(stage, metric, one), numbers.of_method(stage, metric, other)
        differences = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
        if len(differences) > 1:
            variances.append(statistics.variance(differences))
    return math.sqrt(statistics.fmean(variances)) if variances else None


def smallest_difference(sd: float, seeds: int) -> float:
    """The difference that the t-test over ``seeds`` finds with probability 0.8 if paired differences deviate by ``sd``."""
    return sd * _effect_size(seeds)


@cache
def _effect_size(seeds: int) -> float:
    """The smallest difference in standard deviations (Cohen's d of paired differences)."""
    from statsmodels.stats.power import TTestPower  # takes a second to import

    return float(TTestPower().solve_power(effect_size=None, nobs=seeds, alpha=LEVEL, power=POWER, alternative="two-sided"))
