"""Numbers as text have the digits that their intervals support."""

from __future__ import annotations

import pytest

from umd_bench.reporting.notation.formatting import format_difference, format_mean


@pytest.mark.parametrize(
    ("mean", "half", "percent", "text"),
    [
        (0.7834, 0.012, True, "78.3 ± 1.2"),
        (0.7834, None, True, "78.3"),
        (0.7834, 0.0001, True, "78.340 ± 0.010"),
        (15.5815, 0.84, False, "15.6 ± 0.8"),
        (248.67, 31.4, False, "249 ± 31"),
        (0.0102, None, False, "0.0102"),
        (1.0, 0.0, False, "1.00 ± 0.00"),
        (0.0, None, False, "0.00"),
    ],
)
def test_a_mean_has_the_digits_of_its_interval(mean: float, half: float | None, percent: bool, text: str) -> None:
    assert format_mean(mean, half, percent=percent) == text


@pytest.mark.parametrize(
    ("mean", "half", "percent", "text"),
    [
        (0.671, 0.174, False, "+0.67 ± 0.17"),
        (-7.31, 2.6, False, "-7.3 ± 2.6"),
        (21.04, 14.1, False, "+21 ± 14"),
        (-0.0004, 0.21, False, "0.00 ± 0.21"),
        (-0.0471, 0.0172, True, "-4.7 ± 1.7"),
        (0.0331, 0.11, True, "+3.3 ± 11.0"),
        (0.0001, 0.0002, True, "+0.010 ± 0.020"),
        (0.5, 0.0, False, "+0.50 ± 0.00"),
        (1e-5, 1e-6, False, "0.0000 ± 0.0000"),
    ],
)
def test_a_difference_has_the_digits_of_its_interval(mean: float, half: float, percent: bool, text: str) -> None:
    assert format_difference(mean, half, percent=percent) == text
