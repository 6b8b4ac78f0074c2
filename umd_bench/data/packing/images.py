"""Packing of pictures: a reader lists them, processes decode them, the writer stores them in shards.

A data set in ``READERS`` is read in its publisher's layout. Any other name is a user's own data set: a folder of class folders,
or a Hugging Face data set. The pack is then the only description of the data set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.trial.data import SPLITS
from umd_bench.data.datasets import DATASETS, OWN_VERSION, dataset_info
from umd_bench.data.open_data import open_pack
from umd_bench.data.packing.decoder import ON_CORRUPT, decoder
from umd_bench.data.packs.manifest import Manifest, folder_name, own_packs, read_manifest
from umd_bench.data.packs.pack import Pack, require_writable
from umd_bench.data.packs.writer import PackProgress, write_pack
from umd_bench.data.readers import image_folders, torchvision_sets
from umd_bench.data.readers.huggingface import is_huggingface, read_huggingface
from umd_bench.data.readers.imagenet import read_imagenet
from umd_bench.data.readers.picture_list import ListedDataset, PictureList, share_of_each_class
from umd_bench.data.readers.pictures import RESIZES
from umd_bench.machine import usable_cores

# read(folder of the raw files, test share for a data set without splits) -> the listed pictures.
Reader = Callable[[Path, float | None], ListedDataset]

READERS: dict[str, Reader] = torchvision_sets.READERS | {
    "imagenet": read_imagenet,
    "stanford_dogs": image_folders.read_stanford_dogs,
    "uc_merced": image_folders.read_uc_merced,
    "imagenet_v2": image_folders.read_imagenet_v2,
}
_OWN_NAME = re.compile(r"[a-z0-9][a-z0-9_]*")


@dataclass(frozen=True)
class PackOptions:
    """How pictures are packed. ``splits`` must contain "train", "validation" and "test"; None packs all splits."""

    size: int | None = None
    resize: str = "antialiased"
    on_corrupt: str = "refuse"
    workers: int | None = None  # decoding processes; None: one per core
    splits: tuple[str, ...] | None = None
    test_share: float | None = None
    image_column: str | None = None
    label_column: str | None = None
    licence: str | None = None  # of a user's own data set


_DEFAULTS = PackOptions()


def pack_data(
    name: str,
    folder: Path | None,
    root: Path,
    options: PackOptions,
    *,
    progress: Callable[[PackProgress], None] = lambda _: None,
    listed: Callable[[str], None] = lambda _: None,
) -> Pack:
    """Pack the files below ``folder`` as data set ``name`` into the data root ``root``, unless they are packed already.

    A built-in data set (one with ``DatasetInfo.read``) needs no folder and takes no option but its size. For any other data
    set, ``listed`` gets one line before decoding starts: what the files are, or that they are packed already. Raises
    :class:`FieldError` for an option that is not accepted; :class:`UserError` for raw files that are missing or inconsistent, a
    picture that cannot be read (unless ``on_corrupt`` is "skip"), a full disk, and an existing pack that was made with other
    options.
    """
    if name in DATASETS and DATASETS[name].read is not None:
        odd = [field for field, value in vars(options).items() if field != "size" and value != getattr(_DEFAULTS, field)]
        if odd:
            raise FieldError(odd[0], getattr(options, odd[0]), f"the built-in data set {name} has no such option: leave it out")
        return open_pack(name, root, folder, size=options.size, progress=progress)
    folder = _checked_folder(name, folder, root)
    size = _checked_size(name, options)
    target = root / folder_name(name, DATASETS[name].version if name in DATASETS else OWN_VERSION, size)
    if target.exists():
        existing = _checked_existing(target, options)
        listed("is packed already")
        return existing
    require_writable(root)
    dataset = _read(name, folder, options)
    splits = dataset.splits if options.splits is None else _chosen_splits(dataset, options.splits)
    draft, remark = _draft(name, dataset, {split: len(pictures) for split, pictures in splits.items()}, size, options)
    counts = ", ".join(f"{len(pictures):,} {split}" for split, pictures in splits.items())
    listed(f"{counts}, {len(dataset.class_names)} classes{remark}")
    with decoder(size, options.resize, options.workers or usable_cores()) as decode:
        rows = {split: decode.rows(pictures, options.on_corrupt) for split, pictures in splits.items()}
        write_pack(target, draft, rows, inputs=dataset.inputs, progress=progress)
    return Pack(target, read_manifest(target))


def _checked_folder(name: str, folder: Path | None, root: Path) -> Path:
    """The folder of the raw files; raises if it is missing, or if ``name`` is no valid name of a data set."""
    if folder is None:
        if name not in own_packs(root, DATASETS):
            dataset_info(name, root=root)  # raises for an unknown name, which is the mistake to report
        raise UserError(f"{name} is packed from its original files: give their folder with --root DIR")
    if name not in DATASETS and not _OWN_NAME.fullmatch(name):
        raise FieldError("name", name, "expected lower-case letters, digits and _, beginning with a letter or digit")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder: expected the folder that holds the files of {name}")
    return folder


def _checked_size(name: str, options: PackOptions) -> int:
    """The size in pixels; raises :class:`FieldError` if it or another option is not accepted."""
    if options.size is None:
        raise FieldError("size", None, f"images of {name} have no size of their own: expected a number of pixels")
    for field, value, names in (("resize", options.resize, RESIZES), ("on_corrupt", options.on_corrupt, ON_CORRUPT)):
        if value not in names:
            raise FieldError(field, value, one_of(names))
    if options.test_share is not None and not 0 < options.test_share < 1:
        raise FieldError("test_share", options.test_share, "expected a share between 0 and 1, both excluded")
    if options.licence is not None and name in DATASETS:
        raise FieldError("licence", options.licence, f"{name} has its own licence ({DATASETS[name].licence}): leave it out")
    return options.size


def _read(name: str, folder: Path, options: PackOptions) -> ListedDataset:
    if is_huggingface(folder):  # any data set may be stored in this format
        columns = {"image_column": options.image_column, "label_column": options.label_column}
        return read_huggingface(folder, options.test_share, **columns)
    for field in ("image_column", "label_column"):
        if (value := getattr(options, field)) is not None:
            raise FieldError(field, value, f"{folder} is not a Hugging Face data set and has no columns: leave it out")
    return READERS.get(name, image_folders.read_folder)(folder, options.test_share)


def _chosen_splits(dataset: ListedDataset, names: Sequence[str]) -> dict[str, PictureList]:
    for name in names:
        if name not in dataset.splits:
            raise FieldError("splits", ",".join(names), one_of(dataset.splits))
    if missing := [name for name in SPLITS if name not in names]:
        needed = f"every pack has {', '.join(SPLITS)}, and {missing[0]} is missing"
        raise FieldError("splits", ",".join(names), needed)
    return {name: dataset.splits[name] for name in dataset.splits if name in names}


def _draft(name: str, dataset: ListedDataset, counts: dict[str, int], size: int, options: PackOptions) -> tuple[Manifest, str]:
    """The manifest before the files are written, and a remark for the user if the counts are not the published ones."""
    info, notes = DATASETS.get(name), {}
    if info is not None and len(dataset.class_names) != info.classes:
        raise UserError(
            f"{name} has {info.classes} classes, and the files hold {len(dataset.class_names)}: pack a part of it under a name "
            "of your own"
        )
    if info is not None and (published := _published_counts(info.counts, counts)) is not None:
        notes["counts"] = f"not those published: {published}"
    draft = Manifest(
        name=name,
        version=info.version if info is not None else OWN_VERSION,
        size=size,
        channels=3,
        counts={},
        shards={},
        class_names=dataset.class_names,
        licence=info.licence if info is not None else options.licence or "not stated",
        sha256={},
        digest="",
        notes=notes,
        options=_made_by(options) | dataset.options,
    )
    return draft, f" ({notes['counts']})" if notes else ""


def _published_counts(published: Mapping[str, int], counts: dict[str, int]) -> str | None:
    """The publisher's counts if the files have different ones, else None. Splits that the user leaves out are not compared."""
    counts, total = dict(counts), sum(counts.values())
    if "validation" not in published:  # it was split off the training images
        counts["train"] = counts.get("train", 0) + counts.pop("validation", 0)
    same = (
        all(counts.get(split, n) == n for split, n in published.items())
        if len(published) > 1
        else {total} == {*published.values()}
    )
    return None if same or not published else ", ".join(f"{n:,} {split}" for split, n in published.items())


def _made_by(options: PackOptions) -> dict[str, str]:
    return {"resize": options.resize, "crop": "centre square"}


def _checked_existing(target: Path, options: PackOptions) -> Pack:
    """The pack in ``target``; raises :class:`UserError` if it was made with other options."""
    manifest = read_manifest(target)
    stated = manifest.options or {}
    expected = _made_by(options)
    if options.test_share is not None:
        expected["test"] = share_of_each_class(options.test_share)
    for field, value in expected.items():
        if stated.get(field) != value:
            raise UserError(
                f"{target} is packed with {field} {stated.get(field)!r}, not {value!r}: remove it, or give another --out"
            )
    if options.splits is not None and set(options.splits) != set(manifest.counts):
        raise UserError(f"{target} is packed with the splits {', '.join(manifest.counts)}: remove it, or give another --out")
    return Pack(target, manifest)
