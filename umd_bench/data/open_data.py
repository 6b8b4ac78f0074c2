"""Open the pack of a data set by its name or its configuration; small built-in data sets are packed on first use."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.data import DataConfig
from umd_bench.data.datasets import DATASETS, OWN_VERSION, DatasetInfo, Splits, data_facts, dataset_info
from umd_bench.data.packs.manifest import (
    MANIFEST_FILE,
    Manifest,
    earlier_packs,
    folder_name,
    latents_folder_name,
    read_manifest,
    remedy,
)
from umd_bench.data.packs.pack import Pack, require_writable
from umd_bench.data.packs.row_source import rows_from_arrays
from umd_bench.data.packs.writer import PackProgress, write_pack


def open_data(data: DataConfig, root: Path) -> Pack:
    """The pack of a configured data set below the data root ``root``; images of a built-in set are packed on first use.

    Raises as :func:`open_pack` does, and :class:`UserError` if the configured latents are not packed.
    """
    if data.vae is None:
        return open_pack(data.name, root, size=data.size)
    info, latents = dataset_info(data.name, root=root, size=data.size), data_facts(data, root=root)
    folder = latents_folder(data, root)
    if not folder.exists():
        size = "" if info.size is not None else f" --size {data.side}"
        raise UserError(
            f"latents of {data.name} ({data.vae}) cannot be used: their packed folder {folder} is missing; "
            f"`umd-bench data pack {data.name}{size} --vae NAME_OR_PATH --vae-name {data.vae}` makes it from the packed images"
            f"{_earlier(folder)}"
        )
    manifest = _checked(read_manifest(folder), folder, info, latents.size)
    if manifest.vae is None or manifest.vae.name != data.vae:
        raise UserError(f"{folder / MANIFEST_FILE} does not describe latents of {data.vae}; {remedy(folder)}")
    return Pack(folder, manifest)


def open_pack(
    name: str,
    root: Path,
    folder: Path | None = None,
    *,
    size: int | None = None,
    progress: Callable[[PackProgress], None] = lambda _: None,
) -> Pack:
    """The pack of images of the data set ``name`` below the data root ``root``.

    A built-in data set without a pack is read (from ``folder``, or from its reader's usual places) and packed. ``size`` in
    pixels is needed if the data set has no size of its own. Raises :class:`FieldError` for an unknown name and a size that is
    missing or not accepted; :class:`UserError` for a data set that only ``umd-bench data pack`` can pack, raw files that are
    missing or broken, a root that cannot be written, and a damaged pack.
    """
    info = dataset_info(name, root=root, size=size)
    if info.size is not None and size not in (None, info.size):
        raise FieldError("size", size, f"images of {name} have {info.size} pixels a side; expected {info.size} or no size")
    size = data_facts(DataConfig(name=name, size=size or info.size), root=root).size
    target = pack_folder(info, root, size)
    if not target.exists():
        if info.read is None:
            raise UserError(
                f"{name} cannot be used: its packed folder {target} is missing; `umd-bench data pack {name} --root DIR --size "
                f"{size}` makes it from the original files in DIR{_earlier(target)}"
            )
        require_writable(root)
        splits = info.read(folder)
        notes = info.notes(folder, sum(len(labels) for _, labels in splits.values()))
        rows = {split: rows_from_arrays(*splits[split]) for split in splits}
        write_pack(target, _draft(info, size, notes), rows, inputs=_content_hash(splits), progress=progress)
    return Pack(target, _checked(read_manifest(target), target, info, size))


def source_images(pack: Pack) -> Pack:
    """The pack of images that a pack of latents was encoded from; ``pack`` itself if it holds images.

    Raises :class:`UserError` if those images are missing, or if other images lie in their place.
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


def pack_folder(info: DatasetInfo, root: Path, size: int) -> Path:
    """The folder of a data set's images at ``size`` pixels a side."""
    return root / folder_name(info.name, info.version, None if info.size is not None else size)


def latents_folder(data: DataConfig, root: Path) -> Path:
    """The folder of the latents of a configured data set; ``data`` must have a ``vae`` and a side."""
    assert data.vae is not None
    assert data.side is not None
    version = DATASETS[data.name].version if data.name in DATASETS else OWN_VERSION
    return root / latents_folder_name(data.name, version, data.side, data.vae)


def _earlier(target: Path) -> str:
    """The end of an error message. It names the pack of an earlier version if there is one, and is empty otherwise."""
    earlier = earlier_packs(target)
    return f" ({earlier[-1]} was packed by an earlier version, which made no validation split)" if earlier else ""


def _draft(info: DatasetInfo, size: int, notes: dict[str, str]) -> Manifest:
    """The manifest before the files are written."""
    return Manifest(
        name=info.name,
        version=info.version,
        size=size,
        channels=info.channels,
        counts={},
        shards={},
        class_names=info.class_names,
        licence=info.licence,
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


def _checked(manifest: Manifest, folder: Path, info: DatasetInfo, size: int) -> Manifest:
    """``manifest`` itself; raises :class:`UserError` if it describes other data or has changed since it was written."""
    path = folder / MANIFEST_FILE
    if (manifest.name, manifest.version) != (info.name, info.version):
        actual, expected = f"{manifest.name} version {manifest.version}", f"{info.name} version {info.version}"
        raise UserError(f"{path} describes {actual}, expected {expected}; {remedy(folder)}")
    if (info.size is None or manifest.vae is not None) and (manifest.size, len(manifest.class_names)) != (size, info.classes):
        actual = f"{manifest.size} px and {len(manifest.class_names)} classes"
        raise UserError(f"{path} describes {actual}, expected {size} px and {info.classes} classes; {remedy(folder)}")
    if manifest.digest != manifest.facts_digest():
        raise UserError(f"{path} was changed after packing (its content has another digest); {remedy(folder)}")
    return manifest
