"""The difference of two arrays is relative to the largest |entry| of the second; arrays of different shapes are refused."""

from __future__ import annotations

import pytest

from umd_bench.bench.comparison import relative_difference


def test_a_difference_is_relative_and_needs_one_shape() -> None:
    assert relative_difference([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"\[2\] and \[1\]"):
        relative_difference([1.0, 2.0], [1.0])
