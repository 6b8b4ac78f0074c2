"""Rows are the same on the device and in the memory map, read ahead or not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from umd_bench.data.batches import device_rows
from umd_bench.data.batches.device_rows import CPU_BYTES, MappedRows, ResidentRows, fits_on
from umd_bench.data.packs.sharded_array import ShardedArray

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
ROWS = ShardedArray([IMAGES[:20], IMAGES[20:]])
INDEX = torch.tensor([49, 0, 19, 20, 20])


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
@pytest.mark.parametrize("chunk", [1, 100, 1 << 26])
def test_all_rows_are_copied_for_every_size_of_chunk(dtype: type, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_rows, "_CHUNK_BYTES", chunk)
    resident = ResidentRows(ShardedArray([part.astype(dtype) for part in (IMAGES[:20], IMAGES[20:])]), CPU)
    assert np.array_equal(resident.take(torch.arange(50)).numpy(), IMAGES.astype(dtype))


@pytest.mark.parametrize("rows", [ResidentRows(ROWS, CPU), MappedRows(ROWS, CPU)])
def test_rows_come_in_the_order_of_the_index(rows: ResidentRows | MappedRows) -> None:
    assert np.array_equal(rows.take(INDEX).numpy(), IMAGES[INDEX.numpy()])


def test_rows_do_not_depend_on_the_expected_rows() -> None:
    rows = MappedRows(ROWS, CPU, ahead=True)
    for expected in (INDEX, INDEX.flip(0), torch.tensor([1])):
        rows.expect(expected)
        assert np.array_equal(rows.take(INDEX).numpy(), IMAGES[INDEX.numpy()])
    assert np.array_equal(rows.take(INDEX).numpy(), IMAGES[INDEX.numpy()])


def test_expected_rows_are_read_once_and_in_advance(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[list[int]] = []
    rows = MappedRows(ROWS, CPU, ahead=True)
    read = rows._read
    monkeypatch.setattr(rows, "_read", lambda index: reads.append(index.tolist()) or read(index))
    rows.expect(INDEX)
    rows.take(INDEX)
    assert reads == [INDEX.tolist()]


def test_an_error_in_reading_ahead_is_raised_by_take() -> None:
    rows = MappedRows(ROWS, CPU, ahead=True)
    rows.expect(torch.tensor([50]))
    with pytest.raises(IndexError, match=r"rows 50\.\.50 of 50"):
        rows.take(torch.tensor([50]))


def test_on_a_cpu_rows_fit_up_to_a_size_and_a_share_of_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, limit in ((64 << 30, CPU_BYTES), (1 << 30, 1 << 28)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda available=available: SimpleNamespace(available=available))
        assert fits_on(limit, CPU)
        assert not fits_on(limit + 1, CPU)


def test_on_a_gpu_rows_fit_up_to_a_share_of_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    assert fits_on(400, torch.device("cuda"))
    assert not fits_on(401, torch.device("cuda"))
