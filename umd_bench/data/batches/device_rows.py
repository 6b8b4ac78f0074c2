"""Where the rows of a split lie during training: on the device if they fit, else in the memory map, read ahead for a GPU.

Rows fit on a GPU if they take at most 40% of its free memory. (The model is already there, its activations are not.) They fit
on a CPU if they take at most 1 GiB and at most a quarter of the free memory. This limit is low because several stages may train
at the same time: rows in the memory map are in the system's cache once for all of them, but each stage would hold a copy of its
own. Both ways give the same rows.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psutil
import torch
from numpy.typing import NDArray
from torch import Tensor

from umd_bench.data.packs.sharded_array import ShardedArray

GPU_SHARE = 0.4
CPU_SHARE = 0.25
CPU_BYTES = 1 << 30
_CHUNK_BYTES = 1 << 26  # bytes that are copied to the device at a time


def fits_on(nbytes: int, device: torch.device) -> bool:
    """Whether rows of ``nbytes`` bytes fit on ``device``, by the rule above."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return nbytes <= GPU_SHARE * free
    return nbytes <= min(CPU_BYTES, CPU_SHARE * psutil.virtual_memory().available)


def to_device(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """Copy ``values`` from the host to ``device`` without waiting for the copy: a GPU copies from pinned memory."""
    values = torch.as_tensor(values)
    # Torch does not reuse pinned memory until the copies from it are done.
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


class ResidentRows:
    """All rows [N, ...] on the device, moved there once."""

    def __init__(self, rows: ShardedArray, device: torch.device) -> None:
        dtype = torch.from_numpy(rows[:1]).dtype
        self._rows = torch.empty(rows.shape, dtype=dtype, device=device)
        step = max(1, _CHUNK_BYTES * len(rows) // max(rows.nbytes, 1))
        for start in range(0, len(rows), step):
            self._rows[start : start + step] = torch.from_numpy(rows[start : start + step])
        self.index_device = device

    def take(self, index: Tensor) -> Tensor:
        """Rows ``index`` (int64 [B], on ``index_device``) as [B, ...] on the device; a copy, which the caller may change."""
        return self._rows.index_select(0, index)


class MappedRows:
    """Rows [N, ...] gathered from the memory map. With ``ahead`` (default: for a GPU) a thread reads expected rows in advance.

    Rows for a GPU are read into pinned memory, so that the host does not wait for the copy.
    """

    def __init__(self, rows: ShardedArray, device: torch.device, *, ahead: bool | None = None) -> None:
        self._rows, self._device = rows, device
        self.ahead = device.type == "cuda" if ahead is None else ahead
        self._pool = ThreadPoolExecutor(1)  # its thread starts with the first expected rows
        self._expected: tuple[Tensor, Future[Tensor]] | None = None
        self.index_device = torch.device("cpu")

    def take(self, index: Tensor) -> Tensor:
        """As :meth:`ResidentRows.take`; rows that :meth:`expect` announced have been read by then, or are being read."""
        expected, self._expected = self._expected, None
        if expected is not None and torch.equal(expected[0], index):
            return expected[1].result().to(self._device, non_blocking=True)
        return self._read(index).to(self._device, non_blocking=True)

    def expect(self, index: Tensor) -> None:
        """Start to read the rows that are likely to be taken next; only the last announcement counts."""
        self._expected = index, self._pool.submit(self._read, index)

    def _read(self, index: Tensor) -> Tensor:
        rows = torch.from_numpy(self._rows[index.numpy()])
        # Torch does not reuse pinned memory until the copies from it are done.
        return rows.pin_memory() if self._device.type == "cuda" else rows
