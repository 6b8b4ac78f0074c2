"""Features of a set of samples on disk: written by sample index in any order, read in blocks.

The file has no name and goes with the process. It is read and written rather than mapped: pages of a mapping would count as
this process's memory, and grow with N.

Shapes: N samples, D features.
"""

from __future__ import annotations

import tempfile
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import UserError


class FeatureRows(Protocol):
    """Features [N, D] of any float type that are read a few rows at a time: an array, a mapped one, or a :class:`Spool`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N, D."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows of a slice ``start:stop`` or of indices [n]."""
        ...


class Spool:
    """Float32 rows [n, dim] in a temporary file; ``seen`` [n] says which were written."""

    def __init__(self, n: int, dim: int) -> None:
        self.shape: tuple[int, ...] = (n, dim)
        self.seen = np.zeros(n, dtype=bool)
        self._bytes = 4 * dim
        try:
            self._file = tempfile.TemporaryFile(prefix="umd-bench-features-")  # noqa: SIM115  closed with the spool
        except OSError as error:
            raise UserError(
                f"no file for features in {tempfile.gettempdir()} ({error.strerror}): name a folder in $TMPDIR"
            ) from None

    def write(self, index: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Keep ``rows`` [B, dim] as those of the samples ``index`` [B]; :class:`UserError` where the disk is full."""
        try:
            for first, last in _runs(index):
                self._file.seek(int(index[first]) * self._bytes)
                self._file.write(np.ascontiguousarray(rows[first:last], dtype=np.float32).tobytes())
            self._file.flush()
        except OSError as error:
            size = self.shape[0] * self._bytes / 2**20
            where = tempfile.gettempdir()
            raise UserError(
                f"{size:.0f} MiB of features cannot be kept in {where} ({error.strerror}): name a folder with room in $TMPDIR"
            ) from None
        self.seen[index] = True

    def copy_from(self, other: Spool, block: int = 4096) -> None:
        """Take over the rows that ``other``, of the same shape, has seen."""
        index = np.flatnonzero(other.seen)
        for start in range(0, len(index), block):
            part = index[start : start + block]
            self.write(part, other[part])

    def close(self) -> None:
        """Give the room on disk back."""
        self._file.close()

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        index = np.arange(*rows.indices(self.shape[0])) if isinstance(rows, slice) else np.asarray(rows)
        found = np.empty((len(index), self.shape[1]), np.float32)
        for first, last in _runs(index):
            self._file.seek(int(index[first]) * self._bytes)
            self._file.readinto(found[first:last].data)
        return found


def _runs(index: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ends of the stretches of ``index`` that follow each other by one, so that each is one read or write."""
    if len(index) == 0:
        return []
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    return list(zip([0, *breaks.tolist()], [*breaks.tolist(), len(index)], strict=True))
