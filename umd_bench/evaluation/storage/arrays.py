"""Arrays that are computed once and kept on disk: a SHA-256, then the safetensors that it is of.

Who names the file hashes into its name all that the numbers depend on, so that a cache can be stale in no way. A file that is
damaged is made anew, and one that cannot be written costs time only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from umd_bench.store.files import write_atomic

Arrays = dict[str, NDArray[Any]]

_SUM_BYTES = 32


def cached(path: Path, compute: Callable[[], Arrays]) -> Arrays:
    """The arrays kept at ``path``, or ``compute()``'s, which then are kept there."""
    kept = read_cached(path)
    if kept is not None:
        return kept
    # safetensors writes memory as it lies: a matrix in column order, as LAPACK gives it, would come back transposed.
    arrays = {name: np.asarray(array, order="C") for name, array in compute().items()}
    payload = safetensors.numpy.save(arrays)
    with suppress(OSError):  # a data root that is shared and read-only
        write_atomic(path, hashlib.sha256(payload).digest() + payload)
    return arrays


def read_cached(path: Path) -> Arrays | None:
    """The arrays kept at ``path``, or None where the file is missing or is not what its sum says."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    kept, payload = data[:_SUM_BYTES], data[_SUM_BYTES:]
    if hashlib.sha256(payload).digest() != kept:
        return None
    arrays: Arrays = safetensors.numpy.load(payload)
    return arrays
