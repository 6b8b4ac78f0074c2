"""A checkpoint file of unknown origin as named tensors, without running anything that stands in it.

A file is read once, so that what was hashed is what is parsed.
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

_EXACT = (torch.float32, torch.float16, torch.bfloat16)  # what float32 holds without rounding


@dataclass(frozen=True)
class Checkpoint:
    """A file's content: ``tensors`` float32 on the CPU by name, ``sha256`` of its bytes in hex."""

    path: Path
    sha256: str
    tensors: dict[str, Tensor]


def read_checkpoint(path: Path, *, sha256: str | None = None) -> Checkpoint:
    """Read a .npz, .safetensors, .pth, .pt or .bin file.

    A torch file holds a state dict, bare or under ``model``. Raises :class:`UserError` where the file is missing, is not the
    one of ``sha256`` (hex, if given), is damaged or of another format, would need pickled code to be run, or holds what is no
    finite tensor of 32 or 16 bits.
    """
    if path.suffix not in _READERS:
        raise UserError(f"{path} is not accepted: the file's ending must say its format, {one_of(_READERS)}")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); expected a checkpoint file") from None
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise UserError(f"{path} is another file: its SHA-256 is {found}, expected {sha256}")
    try:
        values = _READERS[path.suffix](data)
    except Exception as error:  # a parser of foreign bytes may raise anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UserError(f"{path} is no sound {path.suffix} file of plain tensors, and nothing else is read: {reason}") from None
    return Checkpoint(path, found, {name: _tensor(path, name, value) for name, value in values.items()})


def _tensor(path: Path, name: str, value: object) -> Tensor:
    try:
        tensor = torch.from_numpy(value) if isinstance(value, np.ndarray) else value
    except TypeError:
        raise UserError(f"{path}: parameter {name!r} has the type {value.dtype}: expected float32 or float16") from None  # type: ignore[attr-defined]
    if not isinstance(tensor, Tensor):
        raise UserError(
            f"{path}: {name!r} is a {type(value).__name__}: expected a tensor, in a state dict or one under 'model'"
        )
    if tensor.dtype not in _EXACT:
        raise UserError(f"{path}: parameter {name!r} has the type {tensor.dtype}: expected {', '.join(map(str, _EXACT))}")
    if not tensor.isfinite().all():
        raise UserError(f"{path}: parameter {name!r} holds NaN or infinite values: the weights are no use")
    return tensor.to(torch.float32, copy=True).contiguous()  # a copy: tensors of a file may share their memory


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
