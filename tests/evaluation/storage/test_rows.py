"""Rows on disk: an .npy that numpy reads, complete or absent, and never used if its contents do not match its hash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from umd_bench.evaluation.storage.rows import Rows, load_rows, save_rows, save_rows_together

ROWS = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
SHAPE = (10, 3)


def test_saved_rows_are_an_npy_file_and_load_memory_mapped(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "rows.npy"
    for rows in (save_rows(path, SHAPE, [ROWS[:4], ROWS[4:]]), load_rows(path, SHAPE), np.load(path)):
        assert rows is not None
        assert np.array_equal(rows, ROWS)
    loaded = load_rows(path, SHAPE)
    assert isinstance(loaded, np.memmap)
    assert not loaded.flags.writeable


def test_a_missing_file_another_shape_and_damaged_bytes_load_as_none(tmp_path: Path) -> None:
    path = tmp_path / "rows.npy"
    assert load_rows(path, SHAPE) is None
    save_rows(path, SHAPE, [ROWS])
    assert load_rows(path, (10, 4)) is None
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.unlink()  # a new file, because a process may have mapped rows of the old one
    path.write_bytes(content)
    assert load_rows(path, SHAPE) is None


def test_parts_that_raise_or_have_too_few_rows_leave_no_file(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Rows]:
        yield ROWS[:4]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_rows(tmp_path / "rows.npy", SHAPE, interrupted())
    with pytest.raises(ValueError, match="parts have 4 rows, expected 10"):
        save_rows(tmp_path / "rows.npy", SHAPE, [ROWS[:4]])
    assert not list(tmp_path.iterdir())


def test_rows_for_a_folder_that_cannot_be_written_go_to_a_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    rows = save_rows(tmp_path / "file" / "rows.npy", SHAPE, [ROWS])
    assert np.array_equal(rows, ROWS)


def test_several_files_are_written_together_or_not_at_all(tmp_path: Path) -> None:
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    with pytest.raises(ValueError, match="expected"):
        save_rows_together(paths, SHAPE, [[ROWS[:4], ROWS[:4]]])
    assert list(tmp_path.iterdir()) == []
    for saved in (
        save_rows_together(paths, SHAPE, [[ROWS[:4], 2 * ROWS[:4]], [ROWS[4:], 2 * ROWS[4:]]]),
        [load_rows(p, SHAPE) for p in paths],
    ):
        for rows, factor in zip(saved, (1, 2), strict=True):
            np.testing.assert_array_equal(rows, factor * ROWS)
