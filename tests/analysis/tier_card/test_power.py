"""The power gate: the smallest difference that a number of seeds can show, compared with a simulation."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from analysis.tier_card.numbers import Numbers
from analysis.tier_card.power import pooled_deviation, power, smallest_difference

Make = Callable[[dict[tuple[str, str], dict[str, list[float]]]], Numbers]
COLUMN = ("probe", "acc_100shot")


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_four_of_five_tests_find_the_smallest_difference(seeds: int) -> None:
    sd, repeats = 2.0, 20_000
    difference = smallest_difference(sd, seeds)
    draws = np.random.default_rng(0).normal(difference, sd, (repeats, seeds))
    p = stats.ttest_1samp(draws, 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.01)


def test_the_deviation_is_that_of_paired_differences(numbers_of: Make) -> None:
    """A part that all methods of a seed share cancels; the remaining deviation is pooled over the pairs."""
    shared = [10.0, 20.0, 30.0]
    numbers = numbers_of(
        {
            COLUMN: {
                "a": shared,
                "b": [s + d for s, d in zip(shared, [1, 2, 3], strict=True)],
                "c": [s + d for s, d in zip(shared, [5, 5, 5], strict=True)],
            }
        }
    )
    assert pooled_deviation(numbers, *COLUMN) == pytest.approx(math.sqrt((1 + 1 + 0) / 3))


@pytest.mark.parametrize(("spread", "verdict"), [(0.01, "fail"), (0.04, "pass")])
def test_the_gate_asks_for_half_the_range_between_the_methods(numbers_of: Make, spread: float, verdict: str) -> None:
    """The differences have a standard deviation of 0.01; five seeds can then show a difference of 0.0168."""
    scatter = [0.0, 0.01, 0.02]
    numbers = numbers_of({COLUMN: {"a": [0.5 - spread] * 3, "b": [0.5 - 0.01 + s for s in scatter]}})
    gate = power(numbers, [COLUMN], [COLUMN])
    assert gate.verdict == verdict
    assert (gate.rows[0]["5 seeds show"], gate.rows[0]["judged"]) == (pytest.approx(1.68, abs=0.01), "yes")


def test_columns_that_are_not_judged_decide_nothing(numbers_of: Make) -> None:
    other = ("generate", "fd_x_cnn")
    numbers = numbers_of({COLUMN: {"a": [0.1, 0.11], "b": [0.5, 0.5]}, other: {"a": [1.0, 2.0], "b": [2.0, 1.0]}})
    assert power(numbers, [COLUMN, other], [COLUMN]).verdict == "pass"
    assert power(numbers, [COLUMN, other], [COLUMN, other]).verdict == "fail"


def test_a_judged_column_that_the_table_lacks_is_unknown(numbers_of: Make) -> None:
    other = ("generate", "fd_x_cnn")
    numbers = numbers_of({COLUMN: {"a": [0.1, 0.11], "b": [0.5, 0.5]}})
    gate = power(numbers, [COLUMN], [COLUMN, other])
    assert gate.verdict == "unknown"
    assert "fd_x_cnn" in gate.found


def test_one_seed_or_one_method_is_unknown(numbers_of: Make) -> None:
    assert power(numbers_of({COLUMN: {"a": [0.1], "b": [0.5]}}), [COLUMN], [COLUMN]).verdict == "unknown"
    assert power(numbers_of({COLUMN: {"a": [0.1, 0.2]}}), [COLUMN], [COLUMN]).verdict == "unknown"
    assert power(numbers_of({COLUMN: {"a": [0.1, 0.2], "b": [0.5, 0.6]}}), [COLUMN], []).verdict == "unknown"
