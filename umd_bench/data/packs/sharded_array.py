"""An array whose rows lie in several files, so that a split of any size is read as one array.

Shapes: N rows in total; rows have the same shape in every file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class ShardedArray:
    """The rows of ``shards`` (memory-mapped arrays) one after another; read-only.

    Indexing by a slice or by indices copies the rows into memory, in the order of the index. ``numpy.asarray`` reads all rows.
    """

    def __init__(self, shards: Sequence[NDArray[Any]]) -> None:
        if not shards:
            raise ValueError("a sharded array needs at least one shard")
        self._shards = tuple(shards)
        self._ends = np.array(list(accumulate(map(len, shards))))
        self.dtype = shards[0].dtype
        self.shape: tuple[int, ...] = (int(self._ends[-1]), *shards[0].shape[1:])
        self.nbytes = sum(shard.nbytes for shard in shards)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Rows ``start:stop[:step]``, or the rows at indices [n], as an array [n, ...].

        Indices must be in 0..N-1. ``IndexError`` for an index above, and with several shards also for a negative index.
        """
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            return self[np.arange(start, stop, step)] if step != 1 else self._span(start, max(start, stop))
        if len(self._shards) == 1:
            return np.asarray(self._shards[0][rows])
        if len(rows) and not (int(rows.min()) >= 0 and int(rows.max()) < len(self)):
            raise IndexError(f"rows {int(rows.min())}..{int(rows.max())} of {len(self)}")
        gathered = np.empty((len(rows), *self.shape[1:]), self.dtype)
        shard_of_row = np.searchsorted(self._ends, rows, side="right")
        for index in np.unique(shard_of_row):
            here = shard_of_row == index
            gathered[here] = self._shards[index][rows[here] - (self._ends[index] - len(self._shards[index]))]
        return gathered

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for shard in self._shards:
            yield from shard

    def __array__(self, dtype: DTypeLike | None = None, *, copy: bool | None = None) -> NDArray[Any]:
        return self._span(0, len(self)).astype(dtype or self.dtype, copy=False)

    def _span(self, start: int, stop: int) -> NDArray[Any]:
        """A copy of rows start..stop-1."""
        span = np.empty((stop - start, *self.shape[1:]), self.dtype)
        begin = 0
        for shard, end in zip(self._shards, self._ends.tolist(), strict=True):
            low, high = max(start, begin), min(stop, end)
            if low < high:
                span[low - start : high - start] = shard[low - begin : high - begin]
            begin = end
        return span
