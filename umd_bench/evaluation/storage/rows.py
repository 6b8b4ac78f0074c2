"""Rows of features on disk, too many for memory: an .npy file that is read memory-mapped, and after its rows their SHA-256.

Who names the file hashes into its name all that the numbers depend on, as in cache.py. Shapes: N rows, D features.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import UserError

Rows = NDArray[np.float32]

_SUM_BYTES = 32
_CHUNK = 1 << 22


def kept_rows(path: Path, shape: tuple[int, int]) -> Rows | None:
    """The rows kept at ``path``, float32 ``shape`` [N, D], memory-mapped and read-only.

    None where the file is missing, damaged (it is hashed once a process), or of another shape.
    """
    try:
        state = path.stat()
        if not _is_whole(path, state.st_mtime_ns, state.st_size):
            return None
        rows: Rows = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None
    return rows if rows.shape == shape and rows.dtype == np.float32 else None


def keep_rows(path: Path, shape: tuple[int, int], parts: Iterable[Rows]) -> Rows:
    """Write ``parts``, each [n, D] and together ``shape``, as they come, and give them back memory-mapped.

    Nothing appears at ``path`` before all of it is written; where an exception leaves ``parts``, nothing is left. In a folder
    that cannot be written the rows go to a temporary file that is gone with the process. Raises :class:`UserError` where the
    disk is full.
    """
    kept = False
    file, name = _beside(path)
    try:
        with file:
            _write(file, shape, parts)
            if name is not None:
                Path(name).replace(path)
                kept = True
            return np.memmap(file, np.float32, "r", _data_start(file), shape)
    except OSError as error:
        size = shape[0] * shape[1] * 4 / 2**20
        raise UserError(
            f"features of {shape[0]:,} images ({size:,.0f} MiB) cannot be written to {path.parent} ({error.strerror}): "
            "make room there, or name another folder in $UMD_BENCH_DATA"
        ) from None
    finally:
        if name is not None and not kept:
            Path(name).unlink(missing_ok=True)


def _beside(path: Path) -> tuple[IO[bytes], str | None]:
    """An open file beside ``path`` and its name; elsewhere, and without a name, where the folder cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError:
        return tempfile.TemporaryFile(), None
    os.fchmod(handle, 0o644)  # others may read a shared root; mkstemp makes a private file
    return os.fdopen(handle, "w+b"), name


def _write(file: IO[bytes], shape: tuple[int, int], parts: Iterable[Rows]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    file.seek(0)
    digest = hashlib.sha256(file.read())
    n = 0
    for part in parts:
        data = np.ascontiguousarray(part, "<f4").tobytes()
        digest.update(data)
        file.write(data)
        n += len(part)
    if n != shape[0]:
        raise ValueError(f"{n} rows came, {shape[0]} were promised")
    file.write(digest.digest())
    file.flush()
    os.fsync(file.fileno())


def _data_start(file: IO[bytes]) -> int:
    file.seek(0)
    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return file.tell()


@lru_cache
def _is_whole(path: Path, modified_ns: int, size: int) -> bool:
    """Whether the file's last bytes are the SHA-256 of all before them; the other arguments say which state of it is meant."""
    digest, left = hashlib.sha256(), size - _SUM_BYTES
    with path.open("rb") as file:
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            digest.update(chunk)
            left -= len(chunk)
        return left == 0 and file.read() == digest.digest()
