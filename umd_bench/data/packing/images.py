"""Packing of pictures: a reader lists them, processes decode them, the writer shards them.

A data set of `READERS` is read as its publisher lays it out. Any other name is the user's own: a folder of class folders, or a
Hugging Face data set, and its pack says all that is known of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.data.datasets import OWN_VERSION, SOURCES, source
from umd_bench.data.packing.decoder import ON_CORRUPT, decoder
from umd_bench.data.packs.manifest import Manifest, folder_name, own_packs, read_manifest
from umd_bench.data.packs.pack import Pack, pack, require_writable
from umd_bench.data.packs.writer import Progress, write_pack
from umd_bench.data.readers import image_folders, torchvision_sets
from umd_bench.data.readers.huggingface import is_huggingface, read_huggingface
from umd_bench.data.readers.imagenet import read_imagenet
from umd_bench.data.readers.picture_list import Album, Collection, share_of_each_class
from umd_bench.data.readers.pictures import RESIZES
from umd_bench.machine import usable_cores

# read(folder of the raw files, share of a data set in one piece to test on) -> its pictures, listed.
Reader = Callable[[Path, float | None], Collection]

READERS: dict[str, Reader] = torchvision_sets.READERS | {
    "imagenet": read_imagenet,
    "stanford_dogs": image_folders.read_stanford_dogs,
    "uc_merced": image_folders.read_uc_merced,
    "imagenet_v2": image_folders.read_imagenet_v2,
}
_OWN_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


@dataclass(frozen=True)
class PackOptions:
    """How pictures are packed. ``splits`` None: all there are; it has to hold "train" and "test", which every stage reads."""

    size: int | None = None
    resize: str = "antialiased"
    on_corrupt: str = "refuse"
    workers: int | None = None  # decoding processes; None: one a core
    splits: tuple[str, ...] | None = None
    test_share: float | None = None
    image_column: str | None = None
    label_column: str | None = None
    licence: str | None = None  # of the user's own data set


_DEFAULTS = PackOptions()


def pack_data(
    name: str,
    folder: Path | None,
    root: Path,
    options: PackOptions,
    *,
    progress: Callable[[Progress], None] = lambda _: None,
    listed: Callable[[str], None] = lambda _: None,
) -> Pack:
    """Pack the files below ``folder`` as data set ``name`` into the data root ``root``, unless they are packed already.

    A data set that is made or found here (``DataSource.read``) may do without a folder, and takes no option but its size.
    ``listed`` is told in one line what was found, before anything is decoded. Raises :class:`FieldError` for an option that
    is not accepted, :class:`UserError` for raw files that are missing or do not fit, a picture that cannot be read (unless it
    is to be skipped), a disk without room, and a pack that is there but was made with other options.
    """
    if name in SOURCES and SOURCES[name].read is not None:
        odd = [field for field, value in vars(options).items() if field != "size" and value != getattr(_DEFAULTS, field)]
        if odd:
            raise FieldError(odd[0], getattr(options, odd[0]), f"{name} is packed in one way only, so leave it out")
        return pack(name, root, folder, size=options.size, progress=progress)
    folder = _checked_folder(name, folder, root)
    size = _checked_size(name, options)
    target = root / folder_name(name, SOURCES[name].version if name in SOURCES else OWN_VERSION, size)
    if target.exists():
        there = _packed_before(target, options)
        listed("is packed already")
        return there
    require_writable(root)
    found = _read(name, folder, options)
    splits = found.splits if options.splits is None else _chosen(found, options.splits)
    draft, remark = _draft(name, found, {split: len(album) for split, album in splits.items()}, size, options)
    listed(
        f"{', '.join(f'{len(album):,} {split}' for split, album in splits.items())}, {len(found.class_names)} classes{remark}"
    )
    with decoder(size, options.resize, options.workers or usable_cores()) as pictures:
        rows = {split: pictures.rows(album, options.on_corrupt) for split, album in splits.items()}
        write_pack(target, draft, rows, inputs=found.inputs, progress=progress)
    return Pack(target, read_manifest(target))


def _checked_folder(name: str, folder: Path | None, root: Path) -> Path:
    """The folder of the raw files, where it is one and the name is one that a data set may have."""
    if folder is None:
        if name not in own_packs(root, SOURCES):
            source(name, root=root)  # an unknown name is the mistake to speak of
        raise UserError(f"{name} is packed from its original files: name their folder by --root DIR")
    if name not in SOURCES and not _OWN_NAME.fullmatch(name):
        raise FieldError("name", name, "expected small letters, digits and _, beginning with a letter or digit")
    if not folder.is_dir():
        raise UserError(f"{folder} is no folder: expected the one that holds the files of {name}")
    return folder


def _checked_size(name: str, options: PackOptions) -> int:
    """The size, where it and the other options are accepted."""
    if options.size is None:
        raise FieldError("size", None, f"images of {name} have no size of their own: expected a number of pixels")
    for field, value, names in (("resize", options.resize, RESIZES), ("on_corrupt", options.on_corrupt, ON_CORRUPT)):
        if value not in names:
            raise FieldError(field, value, one_of(names))
    if options.test_share is not None and not 0 < options.test_share < 1:
        raise FieldError("test_share", options.test_share, "expected a share between 0 and 1")
    if options.licence is not None and name in SOURCES:
        raise FieldError("licence", options.licence, f"that of {name} is known ({SOURCES[name].licence}), so leave it out")
    return options.size


def _read(name: str, folder: Path, options: PackOptions) -> Collection:
    if is_huggingface(folder):  # any data set may be kept as one
        columns = {"image_column": options.image_column, "label_column": options.label_column}
        return read_huggingface(folder, options.test_share, **columns)
    for field in ("image_column", "label_column"):
        if (value := getattr(options, field)) is not None:
            raise FieldError(field, value, f"{folder} is no Hugging Face data set and has no columns, so leave it out")
    return READERS.get(name, image_folders.read_folder)(folder, options.test_share)


def _chosen(found: Collection, names: Sequence[str]) -> dict[str, Album]:
    for name in names:
        if name not in found.splits:
            raise FieldError("splits", ",".join(names), one_of(found.splits))
    if missing := [name for name in ("train", "test") if name not in names]:
        raise FieldError("splits", ",".join(names), f"{missing[0]} is missing, which every stage reads")
    return {name: found.splits[name] for name in found.splits if name in names}


def _draft(name: str, found: Collection, counts: dict[str, int], size: int, options: PackOptions) -> tuple[Manifest, str]:
    """The manifest before its files are known, and what is odd about the data set, for people."""
    facts, notes = SOURCES.get(name), {}
    if facts is not None and len(found.class_names) != facts.classes:
        raise UserError(
            f"{name} has {facts.classes} classes, and the files hold {len(found.class_names)}: pack a part of it under a name "
            "of your own"
        )
    if facts is not None and (published := _published(facts.counts, counts)) is not None:
        notes["counts"] = f"not those published: {published}"
    draft = Manifest(
        name=name,
        version=facts.version if facts is not None else OWN_VERSION,
        size=size,
        channels=3,
        counts={},
        shards={},
        class_names=found.class_names,
        licence=facts.licence if facts is not None else options.licence or "not stated",
        sha256={},
        digest="",
        notes=notes,
        options=_made_by(options) | found.options,
    )
    return draft, f" ({notes['counts']})" if notes else ""


def _published(published: Mapping[str, int], counts: dict[str, int]) -> str | None:
    """The publisher's counts where the files have others; a split that is left out is no difference."""
    whole = sum(counts.values())
    same = (
        all(counts.get(split, n) == n for split, n in published.items())
        if len(published) > 1
        else {whole} == {*published.values()}
    )
    return None if same or not published else ", ".join(f"{n:,} {split}" for split, n in published.items())


def _made_by(options: PackOptions) -> dict[str, str]:
    return {"resize": options.resize, "crop": "centre square"}


def _packed_before(target: Path, options: PackOptions) -> Pack:
    """The pack that is there, once it is known to be what was asked for as far as options say."""
    manifest = read_manifest(target)
    stated = manifest.options or {}
    asked = _made_by(options)
    if options.test_share is not None:
        asked["test"] = share_of_each_class(options.test_share)
    for field, value in asked.items():
        if stated.get(field) != value:
            raise UserError(
                f"{target} is packed with {field} {stated.get(field)!r}, not {value!r}: remove it, or name another --out"
            )
    if options.splits is not None and set(options.splits) != set(manifest.counts):
        raise UserError(f"{target} is packed with the splits {', '.join(manifest.counts)}: remove it, or name another by --out")
    return Pack(target, manifest)
