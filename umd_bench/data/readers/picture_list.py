"""Albums: pictures of a data set by split, listed and labelled but not yet decoded. What every reader returns.

A reader lists files and never opens a picture; decoding.py does, in parallel. Which picture is in which split depends on its
name only, so that the same data set gives the same splits from a folder and from its tar files.
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
from umd_bench.data.readers.pictures import Encoded, FileRange

TEST_SHARE = 0.2  # of a data set that comes in one piece, where none is stated
_EXTENSIONS = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_TRAIN, _TEST, _VALIDATION = ("train", "training"), ("test",), ("validation", "val", "valid")


@dataclass(frozen=True)
class Album:
    """The pictures of one split: ``labels`` int64 [N], the name of each for people, and how to get at it."""

    labels: NDArray[np.int64]
    names: Sequence[str]
    load: Callable[[int], Encoded]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64]) -> Album:
        """The pictures of these indices, in their order."""
        return Album(self.labels[indices], [self.names[i] for i in indices.tolist()], lambda i: self.load(int(indices[i])))


@dataclass(frozen=True)
class Collection:
    """A data set as a reader found it. ``inputs`` states the raw files: an interrupted packing goes on only on the same.

    ``options`` says what was chosen about the splits; it enters the pack's digest.
    """

    splits: dict[str, Album]
    class_names: tuple[str, ...]
    inputs: str
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Listed:
    """A picture that has a file, or a part of one: its name (relative to the root, with /), its class, its place, its bytes."""

    name: str
    label: int
    where: FileRange
    bytes: int


def album(listed: Iterable[Listed]) -> Album:
    """Listed pictures in the order of their names."""
    found = sorted(listed, key=lambda picture: picture.name)
    where = [picture.where for picture in found]
    return Album(np.array([x.label for x in found], np.int64), [x.name for x in found], where.__getitem__)


def inputs_of(listed: Iterable[Listed]) -> str:
    """A hash of the names and sizes of files: it is another one as soon as a file comes, goes, or changes in size."""
    content = hashlib.sha256()
    for picture in sorted(listed, key=lambda picture: picture.name):
        content.update(f"{picture.name}\0{picture.bytes}\n".encode())
    return content.hexdigest()


def class_folders(root: Path) -> list[str]:
    """The names of the folders in ``root``, sorted: a class each. Hidden ones are none."""
    return sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))


def list_classes(root: Path, class_names: Sequence[str], *, within: str = "") -> list[Listed]:
    """Every picture below the class folders of ``root``, at any depth; names begin with ``within``.

    Raises :class:`UserError` for a class without a picture.
    """
    listed: list[Listed] = []
    for label, class_name in enumerate(class_names):
        before = len(listed)
        listed += list_pictures(root / class_name, label, f"{within}{class_name}/")
        if len(listed) == before:
            raise UserError(f"{root / class_name} holds no image: expected {', '.join(sorted(_EXTENSIONS))}")
    return listed


def list_pictures(folder: Path, label: int, within: str) -> list[Listed]:
    """Every picture below ``folder``, at any depth; names are ``within`` and the path in the folder."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                found += list_pictures(Path(entry.path), label, f"{within}{entry.name}/")
            elif Path(entry.name).suffix.lower() in _EXTENSIONS:
                found.append(Listed(within + entry.name, label, FileRange(entry.path), entry.stat().st_size))
    return found


def part(whole: Album, share: float, purpose: str, *, by_class: bool) -> tuple[Album, Album]:
    """``whole`` less ``share`` of its pictures, and that share: those whose names have the smallest seeds for ``purpose``.

    ``by_class`` takes the share of each class, at least one picture and at most all but one; else of all together, where the
    first part has int(N (1 - share)). Raises :class:`FieldError` for a share outside (0, 1), :class:`UserError` for a class
    with one picture.
    """
    if not 0 < share < 1:
        raise FieldError("test_share", share, "expected a share between 0 and 1")
    rank = np.array([derive_seed(0, purpose, name) for name in whole.names], np.int64)
    apart = np.zeros(len(whole), np.bool_)
    if by_class:
        for label in np.unique(whole.labels).tolist():
            members = np.flatnonzero(whole.labels == label)
            if len(members) < 2:
                raise UserError(f"a class has one image ({whole.names[members[0]]}): expected two, one for each split")
            n = min(max(1, round(len(members) * share)), len(members) - 1)
            apart[members[np.argsort(rank[members], kind="stable")[:n]]] = True
    else:
        apart[np.argsort(rank, kind="stable")[: len(whole) - int(len(whole) * (1 - share))]] = True
    return whole.take(np.flatnonzero(~apart)), whole.take(np.flatnonzero(apart))


def with_test_split(splits: dict[str, Album], test_share: float | None) -> tuple[dict[str, Album], dict[str, str]]:
    """The splits "train" and "test" and what else there is, and what was decided.

    A data set without a test split is evaluated on its validation split; one without either is parted by ``test_share``.
    Raises :class:`FieldError` for a share where there is nothing to part, :class:`UserError` without a training split.
    """
    named = {_canonical(name): found for name, found in splits.items()}
    if len(named) != len(splits):
        raise UserError(f"two of the splits {', '.join(sorted(splits))} mean the same: remove one")
    if "train" not in named:
        raise UserError(f"there is no training split among {', '.join(sorted(splits)) or 'nothing'}: expected one called train")
    if {"test", "validation"} & set(named):
        if test_share is not None:
            own = ", ".join(sorted(splits))
            raise FieldError("test_share", test_share, f"the data set has splits of its own ({own}), so leave it out")
        if "test" in named:
            return named, {}
        named["test"] = named.pop("validation")
        return named, {"test": "the validation split"}
    share = TEST_SHARE if test_share is None else test_share
    named["train"], named["test"] = part(named["train"], share, "test split", by_class=True)
    return named, {"test": share_of_each_class(share)}


def share_of_each_class(share: float) -> str:
    """What a pack says of a test split that was parted from the rest."""
    return f"{share:g} of each class, drawn by name with seed 0"


def _canonical(split: str) -> str:
    for canonical, names in (("train", _TRAIN), ("test", _TEST), ("validation", _VALIDATION)):
        if split.lower() in names:
            return canonical
    return split.lower()
