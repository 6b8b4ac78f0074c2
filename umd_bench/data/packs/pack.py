"""Packs: a data set as memory-mapped arrays and a manifest, in a folder that appears whole or not at all.

How it lies on disk is told in manifest.py, how it gets there in writing.py: a killed packer leaves nothing that is read, and
of two that pack at once the second uses the first one's pack. A pack is never replaced: one that is damaged, or whose manifest
is another version's, is an error that names the folder to remove, since a running stage may have it mapped.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.trial.data import DataConfig
from umd_bench.data.datasets import OWN_VERSION, SOURCES, DataSource, Splits, data_facts, source
from umd_bench.data.packs.manifest import (
    MANIFEST_FILE,
    Manifest,
    VaeFacts,
    data_root,
    folder_name,
    images_file,
    labels_file,
    latents_folder_name,
    read_manifest,
    remedy,
    sha256_of,
)
from umd_bench.data.packs.sharded_array import ShardedArray
from umd_bench.data.packs.writer import Progress, rows_of, write_pack

__all__ = [
    "Manifest",
    "Pack",
    "Split",
    "data_root",
    "images_of",
    "latents_path",
    "open_data",
    "open_pack",
    "pack",
    "pack_path",
    "verify",
]


@dataclass(frozen=True)
class Split:
    """Rows [N, ...], memory-mapped and read-only; labels int64 [N] in 0..classes-1.

    Rows are images uint8 [N, C, H, W], or, with ``vae``, moments of latents float16 [N, 2, 2, C, h, w] (latents.py).
    """

    images: ShardedArray
    labels: NDArray[np.int64]
    vae: VaeFacts | None = None

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Pack:
    """One packed data set."""

    path: Path
    manifest: Manifest

    def split(self, name: str) -> Split:
        """A split: every pack has "train" and "test". Another name, or files that do not fit, raise :class:`UserError`."""
        facts = self.manifest
        if name not in facts.counts:
            raise UserError(f"{facts.name} has no split {name!r}: {one_of(facts.counts)}")
        rows = [
            self._load(images_file(name, shard), (count, *facts.row_shape), facts.row_dtype)
            for shard, count in enumerate(facts.shards[name])
        ]
        labels = np.array(self._load(labels_file(name), (facts.counts[name],), np.int64))
        return Split(ShardedArray(rows), labels, facts.vae)

    def _load(self, file: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        path = self.path / file
        try:
            array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path} cannot be read ({error}); {remedy(self.path)}") from None
        if array.shape != shape or array.dtype != dtype:
            raise UserError(f"{path} holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}; {remedy(self.path)}")
        return array


def open_pack(name: str, root: Path) -> Pack:
    """The pack of data set ``name`` below ``root``, made on first use. Raises as :func:`pack` does."""
    return pack(name, root)


def open_data(data: DataConfig, root: Path) -> Pack:
    """The pack of a configured data set below ``root``, made on first use where it is one of images.

    Raises as :func:`pack` does, and :class:`UserError` for latents that are not packed.
    """
    if data.vae is None:
        return pack(data.name, root, size=data.size)
    facts, latents = source(data.name, root=root, size=data.size), data_facts(data, root=root)
    target = latents_path(data, root)
    if not target.exists():
        size = "" if facts.size is not None else f" --size {data.side}"
        raise UserError(
            f"latents of {data.name} ({data.vae}) cannot be used: their packed folder {target} is missing; "
            f"`umd-bench data pack {data.name}{size} --vae NAME_OR_PATH --vae-name {data.vae}` makes it of the packed images"
        )
    manifest = _checked(read_manifest(target), target, facts, latents.size)
    if manifest.vae is None or manifest.vae.name != data.vae:
        raise UserError(f"{target / MANIFEST_FILE} is not of latents of {data.vae}; {remedy(target)}")
    return Pack(target, manifest)


def images_of(pack: Pack) -> Pack:
    """The pack of images that a pack of latents was made of; itself where it holds images.

    Raises :class:`UserError` where they are not there any more, or are others.
    """
    vae = pack.manifest.vae
    if vae is None:
        return pack
    images = open_data(DataConfig(name=pack.manifest.name, size=pack.manifest.image_size), pack.path.parent)
    if images.manifest.digest != vae.pixels:
        raise UserError(
            f"{pack.path} holds latents of other images than {images.path} (digests {vae.pixels[:12]} and "
            f"{images.manifest.digest[:12]}); {remedy(pack.path)}"
        )
    return images


def latents_path(data: DataConfig, root: Path) -> Path:
    """The folder of the latents of a configured data set that has a ``vae`` and a side."""
    assert data.vae is not None
    assert data.side is not None
    version = SOURCES[data.name].version if data.name in SOURCES else OWN_VERSION
    return root / latents_folder_name(data.name, version, data.side, data.vae)


def pack(
    name: str,
    root: Path,
    folder: Path | None = None,
    *,
    size: int | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
) -> Pack:
    """Read the data set ``name`` (from ``folder``, or where its source looks) and pack it, unless its pack is there already.

    ``size`` in pixels is needed where the data set has none of its own. Raises :class:`UserError` for an unknown name, a
    missing size, a data set that this version cannot read, raw files that are missing or broken, a root that cannot be
    written, and a pack that is there but damaged.
    """
    facts = source(name, root=root, size=size)
    if facts.size is not None and size not in (None, facts.size):
        raise FieldError("size", size, f"images of {name} have {facts.size} pixels a side")
    size = data_facts(DataConfig(name=name, size=size or facts.size), root=root).size
    target = pack_path(facts, root, size)
    if not target.exists():
        if facts.read is None:
            raise UserError(
                f"{name} cannot be used: its packed folder {target} is missing; `umd-bench data pack {name} --root DIR --size "
                f"{size}` makes it from the original files in DIR"
            )
        require_writable(root)
        splits = facts.read(folder)
        notes = facts.notes(folder, sum(len(labels) for _, labels in splits.values()))
        rows = {split: rows_of(*splits[split]) for split in splits}
        write_pack(target, _draft(facts, size, notes), rows, inputs=_content_hash(splits), progress=progress)
    return Pack(target, _checked(read_manifest(target), target, facts, size))


def _draft(facts: DataSource, size: int, notes: dict[str, str]) -> Manifest:
    return Manifest(
        name=facts.name,
        version=facts.version,
        size=size,
        channels=facts.channels,
        counts={},
        shards={},
        class_names=facts.class_names,
        licence=facts.licence,
        sha256={},
        digest="",
        notes=notes,
    )


def _content_hash(splits: Splits) -> str:
    """The SHA-256 of all images and labels."""
    content = hashlib.sha256()
    for name in sorted(splits):
        for array in splits[name]:
            content.update(np.ascontiguousarray(array).data)
    return content.hexdigest()


def pack_path(facts: DataSource, root: Path, size: int) -> Path:
    """The folder of a data set's pack at ``size`` pixels."""
    return root / folder_name(facts.name, facts.version, None if facts.size is not None else size)


def verify(pack: Pack, *, progress: Callable[[int], None] = lambda _: None) -> None:
    """Hash every file again; ``progress`` is told the bytes of each once it is done.

    Raises :class:`UserError` naming the first one that is missing or is not what was packed.
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
                f"{path} is not what was packed (SHA-256 {actual[:12]}, expected {expected[:12]}); {remedy(pack.path)}"
            )
        progress(path.stat().st_size)
    for split in manifest.counts:
        pack.split(split)


def _checked(manifest: Manifest, target: Path, facts: DataSource, size: int) -> Manifest:
    """``manifest``, once it is known to be of this data set at this size, and as it was written."""
    path = target / MANIFEST_FILE
    if (manifest.name, manifest.version) != (facts.name, facts.version):
        found, expected = f"{manifest.name} version {manifest.version}", f"{facts.name} version {facts.version}"
        raise UserError(f"{path} is of {found}, expected {expected}; {remedy(target)}")
    if (facts.size is None or manifest.vae is not None) and (manifest.size, len(manifest.class_names)) != (size, facts.classes):
        found = f"{manifest.size} px and {len(manifest.class_names)} classes"
        raise UserError(f"{path} is of {found}, expected {size} px and {facts.classes} classes; {remedy(target)}")
    if manifest.digest != manifest.facts_digest():
        raise UserError(f"{path} was changed after packing (its digest is another one); {remedy(target)}")
    return manifest


def require_writable(root: Path) -> None:
    """Prove it before raw data are read, which may take minutes. Raises :class:`UserError`."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(
            f"the data folder {root} cannot be written ({error.strerror}): name one that can be in $UMD_BENCH_DATA"
        ) from None
