"""What a pack says of itself: the manifest, the names of its files, and the folder that a pack lies in.

    root/<name>[-<size>]-v<version>.<format>/           or, of latents, root/<name>-<size>-<vae>-v<version>.<format>/
        manifest.json
        train-labels.npy  train-images-00000.npy  train-images-00001.npy ...      and test-..., and other splits

The size stands in the folder's name where the data set has none of its own.
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

FORMAT = 2  # of the files in a pack; goes up when this version could not read what an earlier one wrote
MANIFEST_FILE = "manifest.json"
SKIPPED_FILE = "skipped.txt"
_SIZED = re.compile(rf"(?P<name>[a-z0-9][a-z0-9_]*)-(?P<size>[1-9]\d*)-v\d+\.{FORMAT}")


class VaeFacts(BaseModel):
    """What the latents of a pack were made with; a copy of the VAE lies in the pack (vae.py), and ``hash`` says that it is.

    A model sees ``(z - shift) * scale`` of a latent z. ``pixels`` is the digest of the pack of the images.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    hash: str
    precision: str  # of the encoder: fp32 or bf16
    scale: float
    shift: float
    channels: int
    factor: int  # the image's side over the latent's
    pixels: str


class Manifest(BaseModel):
    """What a pack holds. ``digest`` is the SHA-256 of all of it but the ``notes``, which say what it was made from.

    A field that is None is left out of the digest, so that a pack which does not need the field keeps its digest.
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
    options: dict[str, str] | None = None  # how the images were made, where that was chosen: resize, crop, splits
    shape: tuple[int, ...] | None = None  # of a row; None: an image [channels, size, size]
    dtype: str | None = None  # of a row; None: uint8
    vae: VaeFacts | None = None  # latents: then size and channels are theirs, and rows are moments (latents.py)

    @property
    def image_size(self) -> int:
        """The side in pixels of the images, or of those that the latents were made of."""
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
        """The SHA-256, in hex, of every field that is set but ``digest`` and ``notes``; the files enter by their hashes."""
        facts = self.model_dump(mode="json", exclude={"digest", "notes"}, exclude_none=True)
        return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()

    def sealed(self) -> Manifest:
        """The same, with the digest that its facts have."""
        return self.model_copy(update={"digest": self.facts_digest()})


def images_file(split: str, shard: int) -> str:
    """The name of a split's shard."""
    return f"{split}-images-{shard:05d}.npy"


def labels_file(split: str) -> str:
    """The name of a split's labels."""
    return f"{split}-labels.npy"


def folder_name(name: str, version: int, size: int | None) -> str:
    """The name of a pack's folder; ``size`` is None where the data set has a size of its own."""
    return f"{name if size is None else f'{name}-{size}'}-v{version}.{FORMAT}"


def latents_folder_name(name: str, version: int, size: int, vae: str) -> str:
    """The name of the folder of a pack of latents; ``size`` is the images' side in pixels."""
    return f"{name}-{size}-{vae}-v{version}.{FORMAT}"


def own_packs(root: Path, known: Container[str]) -> dict[str, list[int]]:
    """The sizes at which each data set is packed below ``root`` whose name is not ``known``: users' own."""
    found: dict[str, list[int]] = {}
    for folder in root.glob(f"*-v*.{FORMAT}"):
        if (match := _SIZED.fullmatch(folder.name)) and match["name"] not in known:
            found.setdefault(match["name"], []).append(int(match["size"]))
    return {name: sorted(found[name]) for name in sorted(found)}


def data_root() -> Path:
    """Where packs lie: $UMD_BENCH_DATA, else ``~/.cache/umd-bench/data``."""
    stated = os.environ.get("UMD_BENCH_DATA")
    return Path(stated).expanduser() if stated else Path.home() / ".cache" / "umd-bench" / "data"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the pack in ``folder``.

    Raises :class:`UserError`, saying to remove the folder, for one that is missing, is no manifest or was changed later.
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
    """What helps where a pack is damaged: it is never replaced, since a running stage may have it mapped."""
    return f"remove the folder {folder} to have it packed again"


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
