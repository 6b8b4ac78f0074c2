"""The source of a split's rows, which a writer reads in ascending ranges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

# read(start, stop) -> (rows [k, *shape], kept bool [stop - start]). k of the rows start..stop-1 are kept: these are returned,
# and ``kept`` is True for them. The others are left out.
Read = Callable[[int, int], tuple[NDArray[Any], NDArray[np.bool_]]]


@dataclass(frozen=True)
class RowSource:
    """The source of a split's rows.

    ``labels`` int64 [N]; ``shape`` and ``dtype`` of one row. ``read`` is called for ascending ranges of rows, at most once for
    each row. If it leaves a row out, it puts the reason (one line) into ``reasons[index]`` before it returns.
    """

    labels: NDArray[np.int64]
    shape: tuple[int, ...]
    dtype: DTypeLike
    read: Read
    reasons: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def rows_from_arrays(images: NDArray[Any], labels: NDArray[np.int64]) -> RowSource:
    """A source of rows in memory: ``images`` [N, ...] and ``labels`` int64 [N]."""

    def read(start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        return images[start:stop], np.ones(stop - start, np.bool_)

    return RowSource(labels, images.shape[1:], images.dtype, read)
