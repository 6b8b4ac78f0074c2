"""Read a checkpoint file of unknown origin as named tensors, without running any code in it.

The file is read once, so the bytes that are hashed are the bytes that are parsed.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from umd_bench.config.errors import UserError, one_of

_EXACT = (torch.float32, torch.float16, torch.bfloat16)  # converted to float32 without rounding


@dataclass(frozen=True)
class WeightFile:
    """The content of a file: ``tensors`` by name, float32 on the CPU; ``sha256`` of its bytes in hex."""

    path: Path
    sha256: str
    tensors: dict[str, Tensor]


def read_weight_file(path: Path, *, sha256: str | None = None) -> WeightFile:
    """Read a .npz, .safetensors, .pth, .pt or .bin file.

    A torch file holds a state dict, bare or under ``model``. Raises :class:`UserError` if the file is missing, has another hash
    than ``sha256`` (hex, if given), is damaged or of another format, would run pickled code, or holds anything but finite
    tensors of float32, float16 or bfloat16.
    """
    if path.suffix not in _READERS:
        raise UserError(f"{path} is not accepted: the file's ending must say its format, {one_of(_READERS)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected a checkpoint file") from None
    actual = hashlib.sha256(data).hexdigest()
    if sha256 is not None and actual != sha256:
        raise UserError(f"{path} is another file: its SHA-256 is {actual}, expected {sha256}")
    try:
        values = _READERS[path.suffix](data)
    except Exception as error:  # a parser of untrusted bytes may raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} is not an intact {path.suffix} file of plain tensors, and nothing else is read: {reason}"
        ) from None
    return WeightFile(path, actual, {name: _tensor(path, name, value) for name, value in values.items()})


def _tensor(path: Path, name: str, value: object) -> Tensor:
    try:
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
    except TypeError:
        raise UserError(f"{path}: parameter {name!r} has the type {value.dtype}: expected float32 or float16") from None  # type: ignore[attr-defined]
    if not isinstance(tensor, Tensor):
        raise UserError(
            f"{path}: {name!r} is a {type(value).__name__}: expected a tensor, in a state dict that is the whole file or lies "
            "under 'model'"
        )
    if tensor.dtype not in _EXACT:
        raise UserError(f"{path}: parameter {name!r} has the type {tensor.dtype}: expected {', '.join(map(str, _EXACT))}")
    if not tensor.isfinite().all():
        raise UserError(f"{path}: parameter {name!r} holds NaN or infinite values: the weights cannot be used")
    return tensor.to(torch.float32, copy=True).contiguous()  # a copy, since tensors of one file may share memory


def _npz(data: bytes) -> Mapping[str, Any]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        return {name: file[name] for name in file.files}


def _torch(data: bytes) -> Mapping[str, Any]:
    loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    state = loaded.get("model", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError("it holds no state dict")
    return state


_READERS: dict[str, Callable[[bytes], Mapping[str, Any]]] = {
    ".npz": _npz,
    ".safetensors": safetensors.torch.load,
    ".pth": _torch,
    ".pt": _torch,
    ".bin": _torch,
}
