"""Float32 rows in a temporary file, written by sample number in any order and read in blocks.

The file has no name and vanishes with the process. It is read and written instead of memory-mapped, because mapped pages count
as the process's memory and would grow with N. Shapes: N samples, B samples at once, D features.
"""

from __future__ import annotations

import tempfile

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import UserError


class TemporaryRows:
    """Rows [N, D] in a temporary file; ``written`` [N] bool says which rows hold data.

    Raises :class:`UserError` if no temporary file can be made.
    """

    def __init__(self, n: int, dim: int) -> None:
        self.shape: tuple[int, ...] = (n, dim)
        self.written = np.zeros(n, dtype=bool)
        self._row_bytes = 4 * dim
        try:
            self._file = tempfile.TemporaryFile(prefix="umd-bench-features-")  # noqa: SIM115  close() closes it
        except OSError as error:
            raise UserError(
                f"no file for features in {tempfile.gettempdir()} ({error.strerror}): name a folder in $TMPDIR"
            ) from None

    def write(self, index: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        """Store ``rows`` [B, D] as the rows ``index`` [B]. Raises :class:`UserError` if the disk is full."""
        try:
            for first, last in _runs(index):
                self._file.seek(int(index[first]) * self._row_bytes)
                self._file.write(np.ascontiguousarray(rows[first:last], dtype=np.float32).tobytes())
            self._file.flush()
        except OSError as error:
            size = self.shape[0] * self._row_bytes / 2**20
            folder = tempfile.gettempdir()
            raise UserError(
                f"{size:.0f} MiB of features cannot be written to {folder} ({error.strerror}): name a folder with room in "
                "$TMPDIR"
            ) from None
        self.written[index] = True

    def copy_from(self, other: TemporaryRows, block: int = 4096) -> None:
        """Copy the written rows of ``other``, which has the same shape."""
        index = np.flatnonzero(other.written)
        for start in range(0, len(index), block):
            part = index[start : start + block]
            self.write(part, other[part])

    def close(self) -> None:
        """Delete the file."""
        self._file.close()

    def __getitem__(self, rows: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        index = np.arange(*rows.indices(self.shape[0])) if isinstance(rows, slice) else np.asarray(rows)
        out = np.empty((len(index), self.shape[1]), np.float32)
        for first, last in _runs(index):
            self._file.seek(int(index[first]) * self._row_bytes)
            self._file.readinto(out[first:last].data)
        return out


def _runs(index: NDArray[np.int64]) -> list[tuple[int, int]]:
    """``(first, last)`` of each stretch of consecutive numbers in ``index``: each is one read or one write."""
    if len(index) == 0:
        return []
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    return list(zip([0, *breaks.tolist()], [*breaks.tolist(), len(index)], strict=True))
