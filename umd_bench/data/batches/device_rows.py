"""Where a split's rows lie while it is trained on: on the device where they fit, else in the memory map, read ahead for a GPU.

The rule: on a GPU a split fits that takes at most 40% of its free memory (the model is there already, its activations are not);
on a CPU one of at most 1 GiB and a quarter of the free memory, since several stages may train side by side and share what the
system caches of the map, but not their copies. Both ways give the same rows.
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
_CHUNK_BYTES = 1 << 26  # moved at once


def fits(nbytes: int, device: torch.device) -> bool:
    """Whether so many bytes are kept on ``device``, by the rule above."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return nbytes <= GPU_SHARE * free
    return nbytes <= min(CPU_BYTES, CPU_SHARE * psutil.virtual_memory().available)


def sent(values: NDArray[Any] | Tensor, device: torch.device) -> Tensor:
    """``values`` of the host on ``device``, with nothing waiting for the copy: to a GPU it is made from pinned memory."""
    values = torch.as_tensor(values)
    # Torch keeps pinned memory from reuse until the copies out of it are done.
    return (values.pin_memory() if device.type == "cuda" else values).to(device, non_blocking=True)


class Resident:
    """All rows [N, ...] on the device, moved there once."""

    def __init__(self, rows: ShardedArray, device: torch.device) -> None:
        dtype = torch.from_numpy(rows[:1]).dtype
        self._rows = torch.empty(rows.shape, dtype=dtype, device=device)
        step = max(1, _CHUNK_BYTES * len(rows) // max(rows.nbytes, 1))
        for start in range(0, len(rows), step):
            self._rows[start : start + step] = torch.from_numpy(rows[start : start + step])
        self.index_device = device

    def take(self, index: Tensor) -> Tensor:
        """Rows ``index`` (int64 [B], on ``index_device``) as [B, ...] on the device, the caller's to change."""
        return self._rows.index_select(0, index)


class Mapped:
    """Rows [N, ...] gathered from the memory map; ``ahead``, on a thread, where they are expected (for a GPU, when left out).

    What goes to a GPU is read into pinned memory, so that its copy waits for nothing.
    """

    def __init__(self, rows: ShardedArray, device: torch.device, *, ahead: bool | None = None) -> None:
        self._rows, self._device = rows, device
        self.ahead = device.type == "cuda" if ahead is None else ahead
        self._pool = ThreadPoolExecutor(1)  # starts its thread with the first row expected
        self._expected: tuple[Tensor, Future[Tensor]] | None = None
        self.index_device = torch.device("cpu")

    def take(self, index: Tensor) -> Tensor:
        """As :meth:`Resident.take`: what was expected if it is that, else read now."""
        expected, self._expected = self._expected, None
        if expected is not None and torch.equal(expected[0], index):
            return expected[1].result().to(self._device, non_blocking=True)
        return self._read(index).to(self._device, non_blocking=True)

    def expect(self, index: Tensor) -> None:
        """Begin to read what is likely to be taken next; of several only the last is kept."""
        self._expected = index, self._pool.submit(self._read, index)

    def _read(self, index: Tensor) -> Tensor:
        rows = torch.from_numpy(self._rows[index.numpy()])
        # Torch keeps pinned memory from reuse until the copies out of it are done.
        return rows.pin_memory() if self._device.type == "cuda" else rows
