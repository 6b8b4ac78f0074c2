"""Readers of data sets that are folders of pictures, a folder a class: anybody's own, and three that are published so.

root/<class>/*.jpg                                 one piece, parted by name into train and test
root/train/<class>/*.jpg and root/test/<class>/*   splits of its own; val or validation where there is no test
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.data.readers.picture_list import (
    Album,
    Collection,
    album,
    class_folders,
    inputs_of,
    list_classes,
    with_test_split,
)

_SPLITS = ("train", "training", "test", "val", "valid", "validation")


def read_folder(root: Path, test_share: float | None) -> Collection:
    """Any image folder in one of the two layouts above; classes are the folders' names, sorted.

    Raises :class:`UserError` for a folder without class folders, a class without a picture, and splits of other classes.
    """
    folders = class_folders(root)
    split_folders = [name for name in folders if name.lower() in _SPLITS]
    if not split_folders:
        if not folders:
            raise UserError(f"{root} holds no folders: expected one for each class, or train and test with the classes inside")
        return _one_piece(root, folders, test_share)
    if odd := [name for name in folders if name not in split_folders]:
        raise UserError(
            f"{root} holds {', '.join(split_folders)} and, beside, {', '.join(odd[:3])}: expected either splits or classes"
        )
    names: dict[str, list[str]] = {split: class_folders(root / split) for split in split_folders}
    classes = names[split_folders[0]]
    for split, found in names.items():
        if not found:
            raise UserError(f"{root / split} holds no folders: expected one for each class")
        if found != classes:
            odd = sorted(set(found) ^ set(classes))
            raise UserError(f"{root}: {split} and {split_folders[0]} have other classes ({', '.join(odd[:3])})")
    listed = {split: list_classes(root / split, classes, within=f"{split}/") for split in split_folders}
    splits, options = with_test_split({split: album(found) for split, found in listed.items()}, test_share)
    return Collection(splits, tuple(classes), inputs_of(chain.from_iterable(listed.values())), options)


def read_stanford_dogs(root: Path, test_share: float | None) -> Collection:
    """Stanford Dogs: ``Images/<n0...-breed>/*.jpg`` with the publisher's split in ``train_list.mat`` and ``test_list.mat``.

    Source: Khosla et al., FGVC 2011. Raises :class:`UserError` where one of the three is missing or they do not fit.
    """
    from scipy.io import loadmat

    images = root / "Images"
    lists = {"train": root / "train_list.mat", "test": root / "test_list.mat"}
    if missing := [path for path in (images, *lists.values()) if not path.exists()]:
        raise UserError(f"{missing[0]} is missing: stanford_dogs needs Images/ (images.tar) and the two lists of lists.tar")
    classes = class_folders(images)
    listed = {picture.name: picture for picture in list_classes(images, classes)}
    splits: dict[str, Album] = {}
    for split, path in lists.items():
        names = [str(cell[0]) for cell in loadmat(path)["file_list"][:, 0]]
        if absent := [name for name in names if name not in listed]:
            raise UserError(f"{images / absent[0]} is missing: {path.name} lists it ({len(absent):,} such)")
        splits[split] = album(listed[name] for name in names)
    named, options = with_test_split(splits, test_share)
    return Collection(named, tuple(name.split("-", 1)[-1] for name in classes), inputs_of(listed.values()), options)


def read_uc_merced(root: Path, test_share: float | None) -> Collection:
    """UC Merced: ``Images/<class>/*.tif``, or the class folders themselves; one piece. Yang and Newsam, ACM GIS 2010."""
    images = root / "Images" if (root / "Images").is_dir() else root
    return _one_piece(images, class_folders(images), test_share)


def read_imagenet_v2(root: Path, test_share: float | None) -> Collection:
    """ImageNet-V2: ``<number>/*.jpeg``, the folder's number being the class; one piece. Recht et al., arXiv 1902.10811.

    Raises :class:`UserError` for a folder whose name is no number.
    """
    inner = root / "imagenetv2-matched-frequency-format-val"
    images = inner if inner.is_dir() else root
    folders = class_folders(images)
    if odd := [name for name in folders if not name.isdecimal()]:
        raise UserError(f"{images / odd[0]} is no class of imagenet_v2: expected folders 0 to 999")
    return _one_piece(images, sorted(folders, key=int), test_share)


def _one_piece(root: Path, classes: list[str], test_share: float | None) -> Collection:
    if not classes:
        raise UserError(f"{root} holds no folders: expected one for each class")
    listed = list_classes(root, classes)
    splits, options = with_test_split({"train": album(listed)}, test_share)
    return Collection(splits, tuple(classes), inputs_of(listed), options)
