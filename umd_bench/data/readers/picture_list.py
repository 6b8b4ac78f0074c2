"""Picture lists: the pictures of a data set by split, listed and labelled but not yet decoded. Every reader returns them.

A reader lists files and never opens a picture; packing/decoder.py does that, in parallel. The split of a picture depends on its
name only, so a data set has the same splits whether it is read from a folder or from tar files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.data import SPLITS
from umd_bench.data.readers.pictures import Encoded, FileRange

TEST_SHARE = 0.2  # of a data set without splits, if the user states no share
VALIDATION_SHARE = 0.1  # of the training images, if the publisher has no validation split
_EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_TRAIN, _TEST, _VALIDATION = ("train", "training"), ("test",), ("validation", "val", "valid")


@dataclass(frozen=True)
class PictureList:
    """The pictures of one split: ``labels`` int64 [N], a readable name of each, and ``load(i)``, which gives picture i."""

    labels: NDArray[np.int64]
    names: Sequence[str]
    load: Callable[[int], Encoded]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> PictureList:
        """The pictures at ``indices``, in that order."""
        names = [self.names[i] for i in indices.tolist()]
        return PictureList(self.labels[indices], names, lambda i: self.load(int(indices[i])))


@dataclass(frozen=True)
class ListedDataset:
    """The result of a reader: the picture lists by split, and the class names.

    ``inputs`` identifies the raw files: an interrupted packing is continued only if ``inputs`` is unchanged. ``options`` says
    how the splits were chosen; it is part of the pack's digest.
    """

    splits: dict[str, PictureList]
    class_names: tuple[str, ...]
    inputs: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PictureFile:
    """A picture in a file or a part of a file: its name (relative to the root, with /), its label, where its bytes are, and how
    many."""

    name: str
    label: int
    where: FileRange
    bytes: int


def picture_list(files: Iterable[PictureFile]) -> PictureList:
    """The pictures of ``files``, sorted by name."""
    pictures = sorted(files, key=lambda picture: picture.name)
    where = [picture.where for picture in pictures]
    return PictureList(np.array([x.label for x in pictures], np.int64), [x.name for x in pictures], where.__getitem__)


def inputs_of(files: Iterable[PictureFile]) -> str:
    """A hash of the names and sizes of files: it changes when a file is added, removed, or changes in size."""
    content = hashlib.sha256()
    for picture in sorted(files, key=lambda picture: picture.name):
        content.update(f"{picture.name}\0{picture.bytes}\n".encode())
    return content.hexdigest()


def class_folders(root: Path) -> list[str]:
    """Names of the folders in ``root``, sorted; each is a class. Hidden folders are ignored."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def list_classes(root: Path, class_names: Sequence[str], *, within: str = "") -> list[PictureFile]:
    """Every picture below the class folders of ``root``, at any depth; ``within`` is put before each name.

    Raises :class:`UserError` for a class without a picture.
    """
    files: list[PictureFile] = []
    for label, class_name in enumerate(class_names):
        before = len(files)
        files += list_pictures(root / class_name, label, f"{within}{class_name}/")
        if len(files) == before:
            raise UserError(f"{root / class_name} holds no image: expected {', '.join(sorted(_EXTENSIONS))}")
    return files


def list_pictures(folder: Path, label: int, within: str) -> list[PictureFile]:
    """Every picture below ``folder``, at any depth; a name is ``within`` plus the path in the folder."""
    files = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                files += list_pictures(Path(entry.path), label, f"{within}{entry.name}/")
            elif Path(entry.name).suffix.lower() in _EXTENSIONS:
                files.append(PictureFile(within + entry.name, label, FileRange(entry.path), entry.stat().st_size))
    return files


def split_off(pictures: PictureList, share: float, purpose: str, *, by_class: bool) -> tuple[PictureList, PictureList]:
    """Split N ``pictures`` into the rest and a ``share``: the pictures with the smallest ``derive_seed(0, purpose, name)``.

    With ``by_class`` the share is taken from each class: at least one picture, at most all but one. Otherwise it is taken from
    all pictures together, and the rest has int(N (1 - share)) pictures. Raises :class:`FieldError` for a share outside (0, 1),
    :class:`UserError` for a class with a single picture.
    """
    if not 0 < share < 1:
        raise FieldError("test_share", share, "expected a share between 0 and 1, both excluded")
    rank = np.array([derive_seed(0, purpose, name) for name in pictures.names], np.int64)
    chosen = np.zeros(len(pictures), np.bool_)
    if by_class:
        for label in np.unique(pictures.labels).tolist():
            members = np.flatnonzero(pictures.labels == label)
            if len(members) < 2:
                name = pictures.names[members[0]]
                raise UserError(f"a class has one image ({name}): expected at least two, one for each split")
            n = min(max(1, round(len(members) * share)), len(members) - 1)
            chosen[members[np.argsort(rank[members], kind="stable")[:n]]] = True
    else:
        chosen[np.argsort(rank, kind="stable")[: len(pictures) - int(len(pictures) * (1 - share))]] = True
    return pictures.take(np.flatnonzero(~chosen)), pictures.take(np.flatnonzero(chosen))


def with_all_splits(splits: dict[str, PictureList], test_share: float | None) -> tuple[dict[str, PictureList], dict[str, str]]:
    """The splits under their usual names, among them "train", "validation" and "test", and how the last two were chosen.

    If there is no test split, the publisher's validation split becomes the test split. If there is neither, ``test_share`` of
    each class becomes the test split. If this leaves no validation split, a tenth of each class of the training split becomes
    the validation split; a class with a single training image keeps it.

    Raises :class:`FieldError` if a share is given although the data set has splits. Raises :class:`UserError` if there is no
    training split, if two splits mean the same, if the test images are drawn and a class has a single image, and if the
    validation images are drawn and every class has a single training image.
    """
    named = {_canonical(name): pictures for name, pictures in splits.items()}
    if len(named) != len(splits):
        raise UserError(f"two of the splits {', '.join(sorted(splits))} mean the same split: remove one")
    if "train" not in named:
        raise UserError(f"there is no training split among {', '.join(sorted(splits)) or 'nothing'}: expected one called train")
    options = {}
    if {"test", "validation"} & set(named):
        if test_share is not None:
            own = ", ".join(sorted(splits))
            raise FieldError("test_share", test_share, f"the data set has its own splits ({own}), so leave the field out")
        if "test" not in named:
            named["test"] = named.pop("validation")
            options["test"] = "the publisher's validation split"
    else:
        share = TEST_SHARE if test_share is None else test_share
        named["train"], named["test"] = split_off(named["train"], share, "test split", by_class=True)
        options["test"] = share_of_each_class(share)
    if "validation" not in named:
        named["train"], named["validation"] = _validation_split(named["train"])
        options["validation"] = f"of train, {share_of_each_class(VALIDATION_SHARE)}"
    usual = {name: named.pop(name) for name in SPLITS}
    return usual | named, options


def _validation_split(train: PictureList) -> tuple[PictureList, PictureList]:
    """The rest of the training pictures, and the validation share of each class that has at least two."""
    single = np.bincount(train.labels)[train.labels] < 2
    if single.all():
        raise UserError("every class has a single training image: expected two of some class, one for the validation split")
    rest, held_out = split_off(train.take(np.flatnonzero(~single)), VALIDATION_SHARE, "validation split", by_class=True)
    if single.any():
        kept = set(held_out.names)
        rest = train.take(np.array([i for i, name in enumerate(train.names) if name not in kept], np.int64))
    return rest, held_out


def share_of_each_class(share: float) -> str:
    """How a pack's manifest describes a test or validation split that was split off by class."""
    return f"{share:g} of each class, drawn by name with seed 0"


def _canonical(split: str) -> str:
    for canonical, names in (("train", _TRAIN), ("test", _TEST), ("validation", _VALIDATION)):
        if split.lower() in names:
            return canonical
    return split.lower()
