"""Packs: a data set as memory-mapped arrays with a manifest, in a folder that appears complete or not at all.

manifest.py describes the files of a pack, and writer.py writes them. A killed packing leaves no folder that is read as a pack.
If two processes pack the same data set, the second uses the pack of the first. A pack is never replaced, because a running
stage may have it mapped. The error for a pack that is damaged or of another version names the folder to remove.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from umd_bench.config.errors import UserError, one_of
from umd_bench.data.packs.manifest import (
    MANIFEST_FILE,
    Manifest,
    VaeFacts,
    images_file,
    labels_file,
    remedy,
    sha256_of,
)
from umd_bench.data.packs.sharded_array import ShardedArray


@dataclass(frozen=True)
class Split:
    """One split: rows [N, ...], memory-mapped and read-only, and labels int64 [N] in 0..classes-1.

    Rows are images uint8 [N, C, H, W]. If ``vae`` is given they are moments of latents float16 [N, 2, 2, C, h, w]
    (batches/posteriors.py).
    """

    images: ShardedArray
    labels: NDArray[np.int64]
    vae: VaeFacts | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Pack:
    """One packed data set: its folder and its manifest."""

    path: Path
    manifest: Manifest

    def split(self, name: str) -> Split:
        """Open a split; every pack has "train", "validation" and "test".

        Raises :class:`UserError` for an unknown name and for files that are missing or do not match the manifest.
        """
        manifest = self.manifest
        if name not in manifest.counts:
            raise UserError(f"{manifest.name} has no split {name!r}: {one_of(manifest.counts)}")
        shards = [
            self._load(images_file(name, shard), (count, *manifest.row_shape), manifest.row_dtype)
            for shard, count in enumerate(manifest.shards[name])
        ]
        labels = np.array(self._load(labels_file(name), (manifest.counts[name],), np.int64))
        return Split(ShardedArray(shards), labels, manifest.vae)

    def _load(self, file: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        path = self.path / file
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path} cannot be read ({error}); {remedy(self.path)}") from None
        if array.shape != shape or array.dtype != dtype:
            raise UserError(f"{path} holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}; {remedy(self.path)}")
        return array


def verify(pack: Pack, *, progress: Callable[[int], None] = lambda _: None) -> None:
    """Hash every file of the pack again; ``progress`` is called with the bytes of each file when it is done.

    Raises :class:`UserError` that names the first file that is missing or has changed since it was packed.
    """
    manifest = pack.manifest
    if manifest.digest != manifest.facts_digest():
        raise UserError(f"{pack.path / MANIFEST_FILE} was changed after packing; {remedy(pack.path)}")
    for file, expected in sorted(manifest.sha256.items()):
        path = pack.path / file
        try:
            actual = sha256_of(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); {remedy(pack.path)}") from None
        if actual != expected:
            raise UserError(
                f"{path} has changed since it was packed (SHA-256 {actual[:12]}, expected {expected[:12]}); {remedy(pack.path)}"
            )
        progress(path.stat().st_size)
    for split in manifest.counts:
        pack.split(split)


def require_writable(root: Path) -> None:
    """Raise :class:`UserError` if the data root cannot be written; call it before reading raw data, which may take minutes."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(
            f"the data folder {root} cannot be written ({error.strerror}): give a writable one in $UMD_BENCH_DATA"
        ) from None
