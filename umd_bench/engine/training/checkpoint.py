"""Training state on disk: written atomically with a checksum, and loaded only if the checksum agrees.

checkpoints/nimg-<n>.safetensors    tensors; metadata: nimg, exact, fingerprint
checkpoints/nimg-<n>.sha256         hash of that file, written before it
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from umd_bench.store.files import write_atomic

_KEEP = 2  # an attempt keeps so many checkpoints, the newest
_HEADER_LENGTH_BYTES = 8


@dataclass(frozen=True)
class Checkpoint:
    """The state that training resumes from. ``exact`` is False if any step was computed under another fingerprint."""

    nimg: int
    tensors: dict[str, Tensor]
    fingerprint: dict[str, str]
    exact: bool


def fingerprint(device: torch.device, world_size: int = 1) -> dict[str, str]:
    """The facts that must be equal for equal bits: device kind, torch version, number of threads and of devices."""
    if device.type == "cuda":
        kind = torch.cuda.get_device_name(device)
    else:
        kind = f"{device.type} {torch.backends.cpu.get_cpu_capability()}"
    threads = str(torch.get_num_threads())
    return {"device": kind, "torch": torch.__version__, "threads": threads, "world_size": str(world_size)}


def pack_checkpoint(checkpoint: Checkpoint) -> bytes:
    """The bytes of one safetensors file."""
    about = {"nimg": str(checkpoint.nimg), "exact": json.dumps(checkpoint.exact)}
    return safetensors.torch.save(checkpoint.tensors, {**about, "fingerprint": json.dumps(checkpoint.fingerprint)})


def unpack_checkpoint(data: bytes) -> Checkpoint:
    """The inverse of :func:`pack_checkpoint`. Raises ``ValueError``, ``KeyError`` or ``SafetensorError``."""
    about = safetensors_metadata(data)
    tensors = safetensors.torch.load(data)
    return Checkpoint(int(about["nimg"]), tensors, json.loads(about["fingerprint"]), json.loads(about["exact"]))


def changes(before: Mapping[str, str], here: Mapping[str, str]) -> list[str]:
    """How two fingerprints differ, as ``name before -> here``; a missing entry is None."""
    names = [*here, *(name for name in before if name not in here)]
    return [f"{name} {before.get(name)} -> {here.get(name)}" for name in names if before.get(name) != here.get(name)]


def save_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the checkpoint into ``folder`` and remove all but the two newest in it."""
    data = pack_checkpoint(checkpoint)
    path = folder / f"nimg-{checkpoint.nimg:012d}.safetensors"
    write_atomic(path.with_suffix(".sha256"), hashlib.sha256(data).hexdigest().encode())
    write_atomic(path, data)
    for old in sorted(folder.glob("nimg-*.safetensors"))[:-_KEEP]:
        _remove(old)


def newest_checkpoint(folders: Iterable[Path], *, at_most: int, warn: Callable[[str], None]) -> Checkpoint | None:
    """The sound checkpoint with the largest nimg <= ``at_most`` in any of ``folders``; among equals, the first folder's.

    A checkpoint that is damaged or unreadable is skipped, and ``warn`` is called with the reason.
    """
    paths = [path for folder in folders for path in folder.glob("nimg-*.safetensors") if _nimg(path) <= at_most]
    for path in sorted(paths, key=_nimg, reverse=True):
        try:
            return _load(path)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            warn(f"checkpoint {path} is skipped: {error}")
    return None


def remove_checkpoints(folders: Iterable[Path]) -> None:
    """Remove every checkpoint in ``folders``, the attempts of one run."""
    for folder in folders:
        for path in folder.glob("nimg-*.safetensors"):
            _remove(path)


def safetensors_metadata(data: bytes) -> Mapping[str, str]:
    """The string metadata in the header of a safetensors file. Raises ``ValueError`` if there is no such header."""
    length = int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
    header: dict[str, dict[str, str]] = json.loads(data[_HEADER_LENGTH_BYTES : _HEADER_LENGTH_BYTES + length])
    return header.get("__metadata__", {})


def _load(path: Path) -> Checkpoint:
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != path.with_suffix(".sha256").read_text():
        raise ValueError("its checksum is wrong")
    return unpack_checkpoint(data)


def _nimg(path: Path) -> int:
    return int(path.stem.removeprefix("nimg-"))


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".sha256").unlink(missing_ok=True)
