"""Rows come back as they were written, in any order; ``written`` says which rows hold data."""

from __future__ import annotations

import numpy as np
import pytest

from umd_bench.config.errors import UserError
from umd_bench.evaluation.storage import temporary_rows
from umd_bench.evaluation.storage.temporary_rows import TemporaryRows


def rows(n: int = 50, d: int = 7) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, d)).astype(np.float32)


def test_rows_come_back_by_slice_and_by_index_for_any_order_of_writing() -> None:
    x, stored = rows(), TemporaryRows(50, 7)
    for index in (np.arange(30, 50), np.array([3, 1, 2, 0]), np.arange(4, 30)):
        stored.write(index, x[index])
    assert stored.written.all()
    assert stored.shape == (50, 7)
    assert np.array_equal(stored[10:20], x[10:20])
    assert np.array_equal(stored[45:99], x[45:])
    assert np.array_equal(stored[np.array([4, 5, 2, 49, 0])], x[[4, 5, 2, 49, 0]])
    assert stored[np.array([], dtype=np.int64)].shape == (0, 7)


def test_parts_of_two_workers_are_one_set() -> None:
    x, one, other = rows(), TemporaryRows(50, 7), TemporaryRows(50, 7)
    one.write(np.arange(0, 50, 2), x[::2])
    other.write(np.arange(1, 50, 2), x[1::2])
    assert one.written.sum() == 25
    one.copy_from(other, block=4)
    assert np.array_equal(one[0:50], x)


def test_no_room_on_disk_gives_a_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(temporary_rows.tempfile, "TemporaryFile", full)
    with pytest.raises(UserError, match=r"No space left on device.*\$TMPDIR"):
        TemporaryRows(50, 7)
