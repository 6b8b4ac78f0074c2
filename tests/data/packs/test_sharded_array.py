"""Several files are read as one array."""

from __future__ import annotations

import numpy as np
import pytest

from umd_bench.data.packs.sharded_array import ShardedArray

ROWS = np.arange(10 * 3 * 2, dtype=np.uint8).reshape(10, 3, 2)


@pytest.fixture(params=[[10], [4, 6], [1, 2, 3, 4]])
def sharded(request: pytest.FixtureRequest) -> ShardedArray:
    return ShardedArray(np.split(ROWS, np.cumsum(request.param)[:-1]))


def test_the_shape_covers_the_rows_of_all_files(sharded: ShardedArray) -> None:
    assert (len(sharded), sharded.shape, sharded.nbytes, sharded.dtype) == (10, ROWS.shape, ROWS.nbytes, np.uint8)
    assert np.array_equal(np.asarray(sharded), ROWS)
    assert np.array_equal(np.stack(list(sharded)), ROWS)


@pytest.mark.parametrize("rows", [slice(0, 10), slice(2, 9), slice(7, 99), slice(5, 5), slice(6, 2), slice(0, 9, 3)])
def test_a_slice_may_cross_the_ends_of_files(sharded: ShardedArray, rows: slice) -> None:
    assert np.array_equal(sharded[rows], ROWS[rows])


@pytest.mark.parametrize("rows", [[0], [9, 0, 4, 4, 3], list(range(9, -1, -1)), []])
def test_indices_give_rows_in_the_order_of_the_indices(sharded: ShardedArray, rows: list[int]) -> None:
    index = np.array(rows, dtype=np.int64)
    assert np.array_equal(sharded[index], ROWS[index])


def test_indexing_gives_a_copy(sharded: ShardedArray) -> None:
    before = ROWS.copy()
    sharded[0:4][:] = 0
    sharded[np.array([5, 6])][:] = 0
    assert np.array_equal(ROWS, before)


def test_indices_out_of_range_are_an_error(sharded: ShardedArray) -> None:
    with pytest.raises(IndexError):
        sharded[np.array([0, 10])]
