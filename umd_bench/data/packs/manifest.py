"""The manifest of a pack, the names of its files, and the name of its folder.

    root/<name>[-<size>]-v<version>.<format>/           or, of latents, root/<name>-<size>-<vae>-v<version>.<format>/
        manifest.json
        train-labels.npy  train-images-00000.npy  train-images-00001.npy ...      and validation-..., test-...

The size is part of the folder's name if the data set has no size of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Container
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from umd_bench.config.errors import UserError

FORMAT = 2  # version of the files' format; raised when packs of earlier versions can no longer be read
MANIFEST_FILE = "manifest.json"
SKIPPED_FILE = "skipped.txt"
_SIZED = re.compile(rf"(?P<name>[a-z0-9][a-z0-9_]*)-(?P<size>[1-9]\d*)-v\d+\.{FORMAT}")


class VaeFacts(BaseModel):
    """The VAE that a pack's latents were made with. Its files are copied into the pack, and ``hash`` identifies them (vae.py).

    A model's input is ``(z - shift) * scale`` for a latent z. ``pixels`` is the digest of the pack that holds the images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    hash: str
    precision: str  # of the encoder: fp32 or bf16
    scale: float
    shift: float
    channels: int
    factor: int  # the image's side divided by the latent's
    pixels: str


class Manifest(BaseModel):
    """The contents of a pack. ``digest`` is the SHA-256 of all other fields except ``notes``, which name the pack's sources.

    A field that is None does not enter the digest, so a later version's field leaves the digests of older packs unchanged.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    size: int
    channels: int
    counts: dict[str, int]
    shards: dict[str, tuple[int, ...]]  # rows in each file of a split, in order
    class_names: tuple[str, ...]
    licence: str
    sha256: dict[str, str]
    digest: str
    notes: dict[str, str] = {}
    options: dict[str, str] | None = None  # how the images were made, if there was a choice: resize, crop, splits
    shape: tuple[int, ...] | None = None  # shape of a row; None: an image [channels, size, size]
    dtype: str | None = None  # type of a row; None: uint8
    vae: VaeFacts | None = None  # only for latents; size and channels are then the latents', and rows are moments

    @property
    def image_size(self) -> int:
        """The side in pixels of the images, or of the images that the latents were made from."""
        return self.size if self.vae is None else self.size * self.vae.factor

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of one row of a split."""
        return self.shape if self.shape is not None else (self.channels, self.size, self.size)

    @property
    def row_dtype(self) -> np.dtype[np.generic]:
        """The type of the numbers of a row."""
        return np.dtype(self.dtype or "uint8")

    def facts_digest(self) -> str:
        """The SHA-256 (hex) of all fields that are set except ``digest`` and ``notes``; it covers files by their hashes."""
        facts = self.model_dump(mode="json", exclude={"digest", "notes"}, exclude_none=True)
        return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def sealed(self) -> Manifest:
        """A copy with the digest of its facts."""
        return self.model_copy(update={"digest": self.facts_digest()})


def images_file(split: str, shard: int) -> str:
    """The name of a split's shard."""
    return f"{split}-images-{shard:05d}.npy"


def labels_file(split: str) -> str:
    """The name of a split's labels."""
    return f"{split}-labels.npy"


def folder_name(name: str, version: int, size: int | None) -> str:
    """The name of a pack's folder; ``size`` is None if the data set has a size of its own."""
    return f"{name if size is None else f'{name}-{size}'}-v{version}.{FORMAT}"


def latents_folder_name(name: str, version: int, size: int, vae: str) -> str:
    """The name of the folder of a pack of latents; ``size`` is the side of the images in pixels."""
    return f"{name}-{size}-{vae}-v{version}.{FORMAT}"


def own_packs(root: Path, known: Container[str]) -> dict[str, list[int]]:
    """Users' own data sets below ``root`` (names that are not ``known``) -> the sizes at which they are packed, sorted."""
    sizes: dict[str, list[int]] = {}
    for folder in root.glob(f"*-v*.{FORMAT}"):
        if (match := _SIZED.fullmatch(folder.name)) and match["name"] not in known:
            sizes.setdefault(match["name"], []).append(int(match["size"]))
    return {name: sorted(sizes[name]) for name in sorted(sizes)}


def earlier_packs(target: Path) -> list[Path]:
    """The folders of earlier versions of the pack that belongs in the folder ``target``, the earliest first."""
    beginning, _, version = target.name.rpartition("-v")
    packs = (root for root in target.parent.glob(f"{beginning}-v*.{FORMAT}") if (root / MANIFEST_FILE).is_file())
    versions = {path: found for path in packs if (found := _version(path)) is not None}
    older = (path for path, found in versions.items() if found < int(version.partition(".")[0]))
    return sorted(older, key=versions.__getitem__)


def _version(folder: Path) -> int | None:
    text = folder.name.rpartition("-v")[2].partition(".")[0]
    return int(text) if text.isdecimal() else None


def data_root() -> Path:
    """The default folder of packs: $UMD_BENCH_DATA, else ``~/.cache/umd-bench/data``."""
    stated = os.environ.get("UMD_BENCH_DATA")
    return Path(stated).expanduser() if stated else Path.home() / ".cache" / "umd-bench" / "data"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the pack in ``folder``.

    Raises :class:`UserError`, which says to remove the folder, if the file is missing or is not a manifest.
    """
    path = folder / MANIFEST_FILE
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {remedy(folder)}") from None
    except (ValidationError, UnicodeDecodeError):
        raise UserError(f"{path} is not a pack's manifest; {remedy(folder)}") from None
    return manifest


def remedy(folder: Path) -> str:
    """The part of an error that says how to repair a pack. Packs are not replaced, since a stage may have them mapped."""
    return f"remove the folder {folder} to have it packed again"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
