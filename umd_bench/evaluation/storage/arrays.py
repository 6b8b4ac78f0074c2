"""Small numpy arrays that are computed once and cached in a file: 32 bytes of SHA-256, then the safetensors data.

The caller hashes every input into the file name (cache_names.py), so entries never go stale. A damaged file is computed again.
If a file cannot be written, only time is lost.
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

_HASH_BYTES = 32


def load_or_compute(path: Path, compute: Callable[[], Arrays]) -> Arrays:
    """The arrays in the file ``path``; if it is missing or damaged, the result of ``compute()``, which is then saved there."""
    loaded = load_arrays(path)
    if loaded is not None:
        return loaded
    # safetensors ignores strides, so a matrix in column order, as LAPACK returns it, would be read back transposed.
    arrays = {name: np.asarray(array, order="C") for name, array in compute().items()}
    payload = safetensors.numpy.save(arrays)
    with suppress(OSError):  # a shared data root can be read-only
        write_atomic(path, hashlib.sha256(payload).digest() + payload)
    return arrays


def load_arrays(path: Path) -> Arrays | None:
    """The arrays in the file ``path``, or None if it is missing or does not match its SHA-256."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, payload = content[:_HASH_BYTES], content[_HASH_BYTES:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    arrays: Arrays = safetensors.numpy.load(payload)
    return arrays
