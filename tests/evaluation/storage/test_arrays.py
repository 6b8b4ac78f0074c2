"""Cached arrays come back unchanged from any memory order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from umd_bench.evaluation.storage.arrays import load_arrays, load_or_compute


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_matrix_comes_back_unchanged_in_c_order(tmp_path: Path, order: str) -> None:
    matrix = np.array(np.arange(6.0).reshape(2, 3), order=order)  # type: ignore[call-overload]
    first = load_or_compute(tmp_path / "x.cache", lambda: {"matrix": matrix, "n": np.array(3.0)})
    again = load_arrays(tmp_path / "x.cache")
    assert again is not None
    for arrays in (first, again):
        assert np.array_equal(arrays["matrix"], matrix)
        assert arrays["matrix"].flags["C_CONTIGUOUS"]  # so that matrix products with either array have the same bits
        assert arrays["n"].shape == ()
