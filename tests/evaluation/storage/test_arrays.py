"""What is kept comes back as it was, however it lay in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from umd_bench.evaluation.storage.arrays import cached, read_cached


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_matrix_comes_back_as_it_was_in_either_order(tmp_path: Path, order: str) -> None:
    matrix = np.array(np.arange(6.0).reshape(2, 3), order=order)  # type: ignore[call-overload]
    first = cached(tmp_path / "x.cache", lambda: {"matrix": matrix, "n": np.array(3.0)})
    again = read_cached(tmp_path / "x.cache")
    assert again is not None
    for arrays in (first, again):
        assert np.array_equal(arrays["matrix"], matrix)
        assert arrays["matrix"].flags["C_CONTIGUOUS"]  # products of the two have the same bits
        assert arrays["n"].shape == ()
