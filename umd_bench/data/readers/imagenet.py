"""The reader of ImageNet (ILSVRC 2012): folders, or the original tar files, which are read without unpacking.

    root/train/<wnid>/*.JPEG                     or  root/ILSVRC2012_img_train.tar (which holds one tar file for each class)
    root/val/<wnid>/*.JPEG, or root/val/*.JPEG   or  root/ILSVRC2012_img_val.tar
    labels of validation pictures without class folders: LOC_val_solution.csv, or the devkit
    (ILSVRC2012_devkit_t12.tar.gz, or its folder ILSVRC2012_devkit_t12)

Kaggle's layout (ILSVRC/Data/CLS-LOC/train and val) is also found below its root. A picture has the same name in every layout,
so folders and tar files give packs that are equal byte for byte. Source: Russakovsky et al., arXiv 1409.0575.
"""

from __future__ import annotations

import csv
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from umd_bench.config.errors import FieldError, UserError
from umd_bench.data.readers.picture_list import (
    ListedDataset,
    PictureFile,
    class_folders,
    inputs_of,
    list_classes,
    list_pictures,
    picture_list,
    split_off,
)
from umd_bench.data.readers.pictures import FileRange

VALIDATION_SHARE = 0.01
_TRAIN_TAR, _VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
_DEVKIT, _SOLUTION = "ILSVRC2012_devkit_t12", "LOC_val_solution.csv"
_TRUTH, _META = "data/ILSVRC2012_validation_ground_truth.txt", "data/meta.mat"


def read_imagenet(root: Path, test_share: float | None) -> ListedDataset:
    """The splits "train" (99% of the training pictures), "validation" (the other 1%) and "test" (the publisher's validation).

    The official implementation trains on the first 99% in the order of its shuffled files. Here the pictures whose names have
    the smallest :func:`derive_seed` are the 1%. Class i is the i-th wnid in alphabetical order, as usual.

    Raises :class:`UserError` if pictures or the labels of the validation pictures are missing, and for an incomplete tar file.
    """
    if test_share is not None:
        raise FieldError("test_share", test_share, "imagenet is tested on its validation pictures, so leave the field out")
    inner = root / "ILSVRC" / "Data" / "CLS-LOC"
    base = inner if inner.is_dir() else root
    train, wnids = _train(base)
    validation = _validation(base, root, wnids)
    rest, held_out = split_off(picture_list(train), VALIDATION_SHARE, "held out", by_class=False)
    splits = {"train": rest, "validation": held_out, "test": picture_list(validation)}
    options = {
        "validation": f"{VALIDATION_SHARE:g} of train, drawn by name with seed 0",
        "test": "the publisher's validation split",
    }
    return ListedDataset(splits, tuple(wnids), inputs_of([*train, *validation]), options)


def tar_members(path: Path, start: int = 0, length: int | None = None) -> Iterator[tuple[str, FileRange]]:
    """The names of a tar file's members and where their bytes are; ``start`` and ``length`` select a tar file inside another.

    Nothing is unpacked. Raises :class:`UserError` if ``path`` is not a tar file or is incomplete.
    """
    size = path.stat().st_size
    end = size if length is None else start + length
    try:
        with path.open("rb") as file, tarfile.open(fileobj=_Part(file, start, end), mode="r:") as members:
            for member in members:
                if member.isfile():
                    offset = start + member.offset_data
                    if offset + member.size > end:
                        raise UserError(f"{path} ends in the middle of {member.name}: it is incomplete; copy it again")
                    yield member.name, FileRange(str(path), offset, member.size)
    except tarfile.TarError as error:
        raise UserError(f"{path} cannot be read as a tar file ({error}); copy it again") from None


class _Part(io.RawIOBase):
    """The bytes start..end-1 of a file, as a file."""

    def __init__(self, file: IO[bytes], start: int, end: int) -> None:
        self._file, self._start, self._length, self._at = file, start, end - start, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._length}[whence])
        return self._at

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._length - self._at)
        self._file.seek(self._start + self._at)
        content = self._file.read(left if size < 0 else min(size, left))
        self._at += len(content)
        return content


def _train(base: Path) -> tuple[list[PictureFile], list[str]]:
    """The training pictures and the wnids, sorted."""
    folder, tar = base / "train", base / _TRAIN_TAR
    if folder.is_dir():
        wnids = class_folders(folder)
        if not wnids:
            raise UserError(f"{folder} holds no folders: expected one for each class, such as n01440764")
        return list_classes(folder, wnids), wnids
    if not tar.is_file():
        raise UserError(f"{base} holds neither train/ nor {_TRAIN_TAR}: give the folder of ImageNet's training pictures")
    inner = {Path(name).stem: where for name, where in tar_members(tar) if name.endswith(".tar")}
    wnids = sorted(inner)
    if not wnids:
        raise UserError(f"{tar} holds no tar files: expected one for each class, such as n01440764.tar")
    listed = [
        PictureFile(f"{wnid}/{Path(name).name}", label, where, where.length or 0)
        for label, wnid in enumerate(wnids)
        for name, where in tar_members(tar, inner[wnid].offset, inner[wnid].length)
    ]
    return listed, wnids


def _validation(base: Path, root: Path, wnids: list[str]) -> list[PictureFile]:
    """The validation pictures. Their names are the file names without the folder, so names are equal in every layout."""
    folder, tar = base / "val", base / _VAL_TAR
    if folder.is_dir() and (folders := class_folders(folder)):
        if folders != wnids:
            odd = sorted(set(folders) ^ set(wnids))
            raise UserError(f"{folder} differs in classes from the training pictures ({', '.join(odd[:3])})")
        return [PictureFile(Path(x.name).name, x.label, x.where, x.bytes) for x in list_classes(folder, wnids)]
    if folder.is_dir():
        pictures = list_pictures(folder, 0, "")
    elif tar.is_file():
        pictures = [PictureFile(Path(name).name, 0, where, where.length or 0) for name, where in tar_members(tar)]
    else:
        raise UserError(f"{base} holds neither val/ nor {_VAL_TAR}: add one, since imagenet is tested on these pictures")
    labels = _validation_labels(base, root)
    index = {wnid: label for label, wnid in enumerate(wnids)}
    listed = []
    for picture in pictures:
        wnid = labels.get(Path(picture.name).stem)
        if wnid not in index:
            raise UserError(f"{picture.name} has no label among the training classes: the labels belong to other pictures")
        listed.append(PictureFile(picture.name, index[wnid], picture.where, picture.bytes))
    return listed


def _validation_labels(base: Path, root: Path) -> dict[str, str]:
    """The wnid of each validation picture, by the file's name without its suffix."""
    for folder in dict.fromkeys((base, root)):
        if (folder / _SOLUTION).is_file():
            with (folder / _SOLUTION).open(newline="", encoding="utf-8") as file:
                return {row["ImageId"]: row["PredictionString"].split()[0] for row in csv.DictReader(file)}
        if (folder / _DEVKIT).is_dir():
            return _devkit_labels((folder / _DEVKIT / _TRUTH).read_bytes(), (folder / _DEVKIT / _META).read_bytes())
        if (folder / f"{_DEVKIT}.tar.gz").is_file():
            with tarfile.open(folder / f"{_DEVKIT}.tar.gz") as kit:
                truth, meta = (kit.extractfile(f"{_DEVKIT}/{file}") for file in (_TRUTH, _META))
                if truth is not None and meta is not None:
                    return _devkit_labels(truth.read(), meta.read())
    raise UserError(
        f"{root} has no labels of the validation pictures: add {_SOLUTION}, {_DEVKIT}.tar.gz or its folder, or sort "
        "the pictures into val/<wnid>/"
    )


def _devkit_labels(truth: bytes, meta: bytes) -> dict[str, str]:
    """Labels from the devkit: a list of class numbers, line i for picture i, and the table of class numbers and wnids."""
    from scipy.io import loadmat

    synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
    wnids = {int(number): str(wnid) for number, wnid in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
    numbers = [int(line) for line in truth.split()]
    return {f"ILSVRC2012_val_{i:08d}": wnids[number] for i, number in enumerate(numbers, start=1)}
