"""Packs: a data set as memory-mapped uint8 arrays and a manifest, in a folder that appears whole or not at all.

    root/<name>[-<size>]-v<version>.<format>/
        manifest.json
        train-labels.npy  train-images-00000.npy  train-images-00001.npy ...      and test-...

The size stands in the folder's name where the data set has none of its own.

A pack is written into a hidden folder beside and renamed, so a killed packer leaves nothing that is read, and of two that
pack at once the first wins and the second uses its pack. A pack is never replaced: one that is damaged, or whose manifest is
another version's, is an error that names the folder to remove, since a running stage may have it mapped.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from umd_bench.config.data import DataConfig
from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.data.shards import ShardedArray
from umd_bench.data.sources import SOURCES, DataSource, Splits, data_facts, source

SPLITS = ("train", "test")
FORMAT = 2  # of the files in a pack; goes up when this version could not read what an earlier one wrote
Scalar = TypeVar("Scalar", bound=np.generic)
_MANIFEST = "manifest.json"
_LEFTOVER_AGE_S = 24 * 3600  # nobody packs for a day: what is older was killed


class Manifest(BaseModel):
    """What a pack holds. ``digest`` is the SHA-256 of all of it but the ``notes``, which say what it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    version: int
    size: int
    channels: int
    counts: dict[str, int]
    shards: dict[str, tuple[int, ...]]  # images in each file of a split, in order
    class_names: tuple[str, ...]
    licence: str
    sha256: dict[str, str]
    digest: str
    notes: dict[str, str] = {}

    def facts_digest(self) -> str:
        """The SHA-256, in hex, of every field that is set but ``digest`` and ``notes``; the files enter by their hashes."""
        facts = self.model_dump(mode="json", exclude={"digest", "notes"}, exclude_none=True)
        return hashlib.sha256(json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


@dataclass(frozen=True)
class Split:
    """Images uint8 [N, C, H, W], memory-mapped and read-only; labels int64 [N] in 0..classes-1."""

    images: ShardedArray
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Pack:
    """One packed data set."""

    path: Path
    manifest: Manifest

    def split(self, name: str) -> Split:
        """The "train" or "test" split. Another name, or files that do not fit the manifest, raise :class:`UserError`."""
        if name not in SPLITS:
            raise UserError(f"{self.manifest.name} has no split {name!r}: {one_of(SPLITS)}")
        facts, n = self.manifest, self.manifest.counts[name]
        shape = facts.channels, facts.size, facts.size
        images = [
            self._load(images_file(name, shard), (count, *shape), np.uint8) for shard, count in enumerate(facts.shards[name])
        ]
        return Split(ShardedArray(images), np.array(self._load(labels_file(name), (n,), np.int64)))

    def _load(self, file: str, shape: tuple[int, ...], dtype: type[Scalar]) -> NDArray[Scalar]:
        path = self.path / file
        try:
            array: NDArray[Scalar] = np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(f"{path} cannot be read ({error}); {_remedy(self.path)}") from None
        if array.shape != shape or array.dtype != dtype:
            raise UserError(f"{path} holds {array.dtype} {array.shape}, not {np.dtype(dtype)} {shape}; {_remedy(self.path)}")
        return array


def images_file(split: str, shard: int) -> str:
    """The name of a split's shard."""
    return f"{split}-images-{shard:05d}.npy"


def labels_file(split: str) -> str:
    """The name of a split's labels."""
    return f"{split}-labels.npy"


def data_root() -> Path:
    """Where packs lie: $UMD_BENCH_DATA, else ``~/.cache/umd-bench/data``."""
    stated = os.environ.get("UMD_BENCH_DATA")
    return Path(stated).expanduser() if stated else Path.home() / ".cache" / "umd-bench" / "data"


def open_pack(name: str, root: Path) -> Pack:
    """The pack of data set ``name`` below ``root``, made on first use. Raises as :func:`pack` does."""
    return pack(name, root)


def open_data(data: DataConfig, root: Path) -> Pack:
    """The pack of a configured data set below ``root``, made on first use. Raises as :func:`pack` does."""
    return pack(data.name, root, size=data.size, vae=data.vae)


def pack(name: str, root: Path, folder: Path | None = None, *, size: int | None = None, vae: str | None = None) -> Pack:
    """Read the data set ``name`` (from ``folder``, or where its source looks) and pack it, unless its pack is there already.

    ``size`` in pixels is needed where the data set has none of its own. Raises :class:`UserError` for an unknown name, a
    missing size, a data set that this version cannot read, raw files that are missing or broken, a root that cannot be
    written, and a pack that is there but damaged.
    """
    facts = source(name)
    if facts.size is not None and size not in (None, facts.size):
        raise FieldError("size", size, f"images of {name} have {facts.size} pixels a side")
    size = data_facts(DataConfig(name=name, size=size or facts.size, vae=vae)).size
    if vae is not None:
        raise UserError(f"latents of {name} ({vae}) cannot be used: this version reads no packs of latents; train on pixels")
    target = pack_path(facts, root, size)
    if not target.exists():
        if facts.read is None:
            raise UserError(
                f"{name} cannot be used: its packed folder {target} is missing, and this version has no reader to make it with"
            )
        _require_writable(root)
        _remove_leftovers(root, target.name)
        splits = facts.read(folder)
        notes = facts.notes(folder, sum(len(labels) for _, labels in splits.values()))
        _write(facts, size, splits, notes, target)
    return Pack(target, _read_manifest(target, facts, size))


def pack_path(facts: DataSource, root: Path, size: int) -> Path:
    """The folder of a data set's pack at ``size`` pixels."""
    sized = facts.name if facts.size is not None else f"{facts.name}-{size}"
    return root / f"{sized}-v{facts.version}.{FORMAT}"


def describe_sources(root: Path) -> Iterator[str]:
    """One line a data set: its images, its classes, its licence, and whether its pack lies below ``root``."""
    for name, facts in SOURCES.items():
        if facts.size is not None:
            targets = [target for target in (pack_path(facts, root, facts.size),) if target.exists()]
            shape = f"{facts.channels}x{facts.size}x{facts.size}"
        else:
            targets = sorted(root.glob(f"{name}-[0-9]*-v{facts.version}.{FORMAT}"))
            shape = f"{facts.channels} channels at a size you choose"
        images = "".join(f"{count:,} {split}, " for split, count in facts.counts.items())
        where = f"packed in {', '.join(map(str, targets))}" if targets else "not packed"
        if not targets:
            where += "; this version has no reader of it" if facts.read is None else f"; `umd-bench data pack {name}` does it"
        yield f"{name}: {shape}, {images}{facts.classes} classes, {facts.licence}; {where}"


def verify(pack: Pack) -> None:
    """Hash every file again; :class:`UserError` naming the first one that is missing or is not what was packed."""
    for file, expected in sorted(pack.manifest.sha256.items()):
        path = pack.path / file
        try:
            actual = _sha256(path)
        except OSError as error:
            raise UserError(f"{path} cannot be read ({error.strerror}); {_remedy(pack.path)}") from None
        if actual != expected:
            raise UserError(
                f"{path} is not what was packed (SHA-256 {actual[:12]}, expected {expected[:12]}); {_remedy(pack.path)}"
            )
    for split in SPLITS:
        pack.split(split)


def _write(facts: DataSource, size: int, splits: Splits, notes: dict[str, str], target: Path) -> None:
    """Write the pack beside ``target`` and rename it, unless another process was first."""
    beside: Path | None = None
    try:
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        beside.chmod(0o755)  # others may read a shared root; mkdtemp makes a private folder
        sha256 = {}
        for split in SPLITS:
            images, labels = splits[split]
            sha256[images_file(split, 0)] = _save(beside / images_file(split, 0), images)
            sha256[labels_file(split)] = _save(beside / labels_file(split), labels)
        draft = Manifest(
            name=facts.name,
            version=facts.version,
            size=size,
            channels=facts.channels,
            counts={split: len(splits[split][1]) for split in SPLITS},
            shards={split: (len(splits[split][1]),) for split in SPLITS},
            class_names=facts.class_names,
            licence=facts.licence,
            sha256=sha256,
            digest="",
            notes=notes,
        )
        manifest = draft.model_copy(update={"digest": draft.facts_digest()})
        with (beside / _MANIFEST).open("w", encoding="utf-8") as file:
            file.write(manifest.model_dump_json(indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        _rename_unless_taken(beside, target)
    except OSError as error:
        raise UserError(
            f"{facts.name} cannot be packed into {target.parent} ({error.strerror}): give a root with room"
        ) from None
    finally:
        if beside is not None:
            shutil.rmtree(beside, ignore_errors=True)  # already gone where the rename went through


def _rename_unless_taken(beside: Path, target: Path) -> None:
    try:
        beside.rename(target)
    except OSError:
        if not target.is_dir():
            raise  # else the other packer's folder stays


def _save(path: Path, array: NDArray[np.generic]) -> str:
    """Save as .npy in C order, sync, and return the file's SHA-256."""
    with path.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(target: Path, facts: DataSource, size: int) -> Manifest:
    path = target / _MANIFEST
    try:
        manifest = Manifest.model_validate_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {_remedy(target)}") from None
    except (ValidationError, UnicodeDecodeError):
        raise UserError(f"{path} is not a pack's manifest; {_remedy(target)}") from None
    if (manifest.name, manifest.version) != (facts.name, facts.version):
        found, expected = f"{manifest.name} version {manifest.version}", f"{facts.name} version {facts.version}"
        raise UserError(f"{path} is of {found}, expected {expected}; {_remedy(target)}")
    if facts.size is None and (manifest.size, len(manifest.class_names)) != (size, facts.classes):
        found = f"{manifest.size} px and {len(manifest.class_names)} classes"
        raise UserError(f"{path} is of {found}, expected {size} px and {facts.classes} classes; {_remedy(target)}")
    if manifest.digest != manifest.facts_digest():
        raise UserError(f"{path} was changed after packing (its digest is another one); {_remedy(target)}")
    return manifest


def _remedy(target: Path) -> str:
    return f"remove the folder {target} to have it packed again"


def _require_writable(root: Path) -> None:
    """Prove it before the raw data are read, which may take minutes."""
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise UserError(
            f"the data folder {root} cannot be written ({error.strerror}): name one that can be in $UMD_BENCH_DATA"
        ) from None


def _remove_leftovers(root: Path, name: str) -> None:
    for leftover in root.glob(f".{name}.*"):
        try:
            if time.time() - leftover.stat().st_mtime > _LEFTOVER_AGE_S:
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError:
            continue  # its packer finished in between
