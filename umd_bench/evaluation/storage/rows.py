"""Large float32 matrices on disk: an .npy file that is read memory-mapped, followed by 32 bytes of SHA-256.

numpy reads the array and ignores what follows. The caller hashes every input into the file name (cache_names.py), so entries
never go stale. Shapes: N rows, D features.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import UserError

Rows = NDArray[np.float32]
Index = NDArray[np.int64]  # row numbers

_HASH_BYTES = 32
_CHUNK = 1 << 22


class FeatureRows(Protocol):
    """Features [N, D] of any float type, read a few rows at a time.

    A numpy array, a memory map, :class:`TemporaryRows`, or features that are computed when they are read.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, D)``."""
        ...

    def __getitem__(self, rows: Any, /) -> Any:
        """The rows of a slice ``start:stop`` or of an index array [n], as an array [n, D]."""
        ...


def load_rows(path: Path, shape: tuple[int, int]) -> Rows | None:
    """The float32 rows [N, D] in the file ``path``, memory-mapped and read-only.

    None if the file is missing, has another shape, or does not match its SHA-256. A process checks the hash once, and again if
    the file changes.
    """
    try:
        state = path.stat()
        if not _is_whole(path, state.st_mtime_ns, state.st_size):
            return None
        rows: Rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return rows if rows.shape == shape and rows.dtype == np.float32 else None


def save_rows(path: Path, shape: tuple[int, int], parts: Iterable[Rows]) -> Rows:
    """Write ``parts``, each [n, D] and together ``shape``, one after another; return them memory-mapped and read-only.

    The file appears at ``path`` only when it is complete; if iterating ``parts`` raises, no file remains. If the folder cannot
    be written, the rows go to a temporary file that vanishes with the process. Raises :class:`UserError` if the disk is full.
    """
    return save_rows_together([path], shape, ([part] for part in parts))[0]


def save_rows_together(paths: Sequence[Path], shape: tuple[int, int], parts: Iterable[Sequence[Rows]]) -> list[Rows]:
    """:func:`save_rows` for several files of one shape: each item of ``parts`` holds the next rows [n, D] of every file."""
    unsaved: list[str] = []
    try:
        with ExitStack() as files:
            opened = [_open_temporary(path) for path in paths]
            unsaved = [name for _, name in opened if name is not None]
            writers = [_Writer(files.enter_context(file), shape) for file, _ in opened]
            for together in parts:
                for writer, part in zip(writers, together, strict=True):
                    writer.add(part)
            for writer, path, (_, name) in zip(writers, paths, opened, strict=True):
                writer.finish()
                if name is not None:
                    Path(name).replace(path)
                    unsaved.remove(name)
            return [np.memmap(file, np.float32, "r", _data_start(file), shape) for file, _ in opened]
    except OSError as error:
        size = len(paths) * shape[0] * shape[1] * 4 / 2**20
        raise UserError(
            f"features of {shape[0]:,} images ({size:,.0f} MiB) cannot be written to {paths[0].parent} ({error.strerror}): "
            "make room there, or name another folder in $UMD_BENCH_DATA"
        ) from None
    finally:
        for name in unsaved:
            Path(name).unlink(missing_ok=True)


def _open_temporary(path: Path) -> tuple[IO[bytes], str | None]:
    """An open temporary file in the folder of ``path``, and its name.

    If that folder is not writable, the file is in the system's temporary folder and has no name (None).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError:
        return tempfile.TemporaryFile(), None
    os.fchmod(handle, 0o644)  # mkstemp makes a private file, and others may read a shared root
    return os.fdopen(handle, "w+b"), name


class _Writer:
    """Writes the header of an array of ``shape`` into an open file, then its rows, and their SHA-256 at the end."""

    def __init__(self, file: IO[bytes], shape: tuple[int, int]) -> None:
        self._file, self._shape, self._n = file, shape, 0
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
        file.seek(0)
        self._digest = hashlib.sha256(file.read())

    def add(self, part: Rows) -> None:
        """Append rows [n, D]."""
        data = np.ascontiguousarray(part, "<f4").tobytes()
        self._digest.update(data)
        self._file.write(data)
        self._n += len(part)

    def finish(self) -> None:
        """Append the hash and sync the file. Raises ``ValueError`` if rows are missing or too many."""
        if self._n != self._shape[0]:
            raise ValueError(f"parts have {self._n} rows, expected {self._shape[0]}")
        self._file.write(self._digest.digest())
        self._file.flush()
        os.fsync(self._file.fileno())


def _data_start(file: IO[bytes]) -> int:
    """The offset of the array's data, in bytes."""
    file.seek(0)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return file.tell()


@lru_cache
def _is_whole(path: Path, modified_ns: int, size: int) -> bool:
    """Whether the last 32 bytes are the SHA-256 of all before them; time and size make the cache notice a changed file."""
    digest, left = hashlib.sha256(), size - _HASH_BYTES
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        return left == 0 and file.read() == digest.digest()
