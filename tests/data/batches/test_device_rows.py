"""Rows are the same wherever they lie, whether or not they were read ahead."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

from umd_bench.data.batches import device_rows
from umd_bench.data.batches.device_rows import CPU_BYTES, Mapped, Resident, fits
from umd_bench.data.packs.sharded_array import ShardedArray

CPU = torch.device("cpu")
IMAGES = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 4), dtype=np.uint8)
ROWS = ShardedArray([IMAGES[:20], IMAGES[20:]])
INDEX = torch.tensor([49, 0, 19, 20, 20])


@pytest.mark.parametrize("dtype", [np.uint8, np.float16])
@pytest.mark.parametrize("chunk", [1, 100, 1 << 26])
def test_all_rows_arrive_whatever_is_moved_at_once(dtype: type, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_rows, "_CHUNK_BYTES", chunk)
    resident = Resident(ShardedArray([part.astype(dtype) for part in (IMAGES[:20], IMAGES[20:])]), CPU)
    assert np.array_equal(resident.take(torch.arange(50)).numpy(), IMAGES.astype(dtype))


@pytest.mark.parametrize("rows", [Resident(ROWS, CPU), Mapped(ROWS, CPU)])
def test_rows_come_in_the_order_asked_for(rows: Resident | Mapped) -> None:
    assert np.array_equal(rows.take(INDEX).numpy(), IMAGES[INDEX.numpy()])


def test_rows_are_the_same_whatever_was_expected() -> None:
    rows = Mapped(ROWS, CPU, ahead=True)
    for expected in (INDEX, INDEX.flip(0), torch.tensor([1])):
        rows.expect(expected)
        assert np.array_equal(rows.take(INDEX).numpy(), IMAGES[INDEX.numpy()])
    assert np.array_equal(rows.take(INDEX).numpy(), IMAGES[INDEX.numpy()])


def test_what_was_expected_is_read_once_and_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[list[int]] = []
    rows = Mapped(ROWS, CPU, ahead=True)
    read = rows._read
    monkeypatch.setattr(rows, "_read", lambda index: reads.append(index.tolist()) or read(index))
    rows.expect(INDEX)
    rows.take(INDEX)
    assert reads == [INDEX.tolist()]


def test_a_read_ahead_that_fails_fails_where_it_is_taken() -> None:
    rows = Mapped(ROWS, CPU, ahead=True)
    rows.expect(torch.tensor([50]))
    with pytest.raises(IndexError, match=r"rows 50\.\.50 of 50"):
        rows.take(torch.tensor([50]))


def test_on_a_cpu_what_fits_is_small_beside_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for available, limit in ((64 << 30, CPU_BYTES), (1 << 30, 1 << 28)):
        monkeypatch.setattr(psutil, "virtual_memory", lambda available=available: SimpleNamespace(available=available))
        assert fits(limit, CPU)
        assert not fits(limit + 1, CPU)


def test_on_a_gpu_what_fits_is_a_share_of_its_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    assert fits(400, torch.device("cuda"))
    assert not fits(401, torch.device("cuda"))
