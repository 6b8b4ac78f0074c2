"""Readers of data sets with one folder of pictures per class: a user's own, and three that are published in this layout.

root/<class>/*.jpg                                 no splits: divided by name into train, validation and test
root/train/<class>/*.jpg and root/test/<class>/*   with splits; val or validation becomes the test split if there is no test
"""

from __future__ import annotations

from itertools import chain
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.data.readers.picture_list import (
    ListedDataset,
    PictureList,
    class_folders,
    inputs_of,
    list_classes,
    picture_list,
    with_all_splits,
)

_SPLITS = ("train", "training", "test", "val", "valid", "validation")


def read_folder(root: Path, test_share: float | None) -> ListedDataset:
    """Any image folder in one of the two layouts above; classes are the names of the folders, sorted.

    Raises :class:`UserError` for a folder without class folders, a class without a picture, and splits whose classes differ.
    """
    folders = class_folders(root)
    split_folders = [name for name in folders if name.lower() in _SPLITS]
    if not split_folders:
        if not folders:
            raise UserError(f"{root} holds no folders: expected one for each class, or train and test with the classes inside")
        return _without_splits(root, folders, test_share)
    if odd := [name for name in folders if name not in split_folders]:
        raise UserError(
            f"{root} holds {', '.join(split_folders)} and also {', '.join(odd[:3])}: expected either splits or classes"
        )
    classes_by_split: dict[str, list[str]] = {split: class_folders(root / split) for split in split_folders}
    classes = classes_by_split[split_folders[0]]
    for split, names in classes_by_split.items():
        if not names:
            raise UserError(f"{root / split} holds no folders: expected one for each class")
        if names != classes:
            odd = sorted(set(names) ^ set(classes))
            raise UserError(f"{root}: {split} and {split_folders[0]} differ in classes ({', '.join(odd[:3])})")
    files = {split: list_classes(root / split, classes, within=f"{split}/") for split in split_folders}
    splits, options = with_all_splits({split: picture_list(files[split]) for split in files}, test_share)
    return ListedDataset(splits, tuple(classes), inputs_of(chain.from_iterable(files.values())), options)


def read_stanford_dogs(root: Path, test_share: float | None) -> ListedDataset:
    """Stanford Dogs: ``Images/<n0...-breed>/*.jpg`` with the publisher's split in ``train_list.mat`` and ``test_list.mat``.

    Source: Khosla et al., FGVC 2011. Raises :class:`UserError` if one of the three is missing, or a list names a missing file.
    """
    from scipy.io import loadmat

    images = root / "Images"
    lists = {"train": root / "train_list.mat", "test": root / "test_list.mat"}
    if missing := [path for path in (images, *lists.values()) if not path.exists()]:
        raise UserError(f"{missing[0]} is missing: stanford_dogs needs Images/ (images.tar) and the two lists of lists.tar")
    classes = class_folders(images)
    files = {picture.name: picture for picture in list_classes(images, classes)}
    splits: dict[str, PictureList] = {}
    for split, path in lists.items():
        names = [str(cell[0]) for cell in loadmat(path)["file_list"][:, 0]]
        if absent := [name for name in names if name not in files]:
            raise UserError(f"{images / absent[0]} is missing: {path.name} lists it ({len(absent):,} missing in all)")
        splits[split] = picture_list(files[name] for name in names)
    named, options = with_all_splits(splits, test_share)
    return ListedDataset(named, tuple(name.split("-", 1)[-1] for name in classes), inputs_of(files.values()), options)


def read_uc_merced(root: Path, test_share: float | None) -> ListedDataset:
    """UC Merced: ``Images/<class>/*.tif``, or the class folders themselves; no splits. Yang and Newsam, ACM GIS 2010."""
    images = root / "Images" if (root / "Images").is_dir() else root
    return _without_splits(images, class_folders(images), test_share)


def read_imagenet_v2(root: Path, test_share: float | None) -> ListedDataset:
    """ImageNet-V2: ``<number>/*.jpeg``, the folder's number is the class; no splits. Recht et al., arXiv 1902.10811.

    Raises :class:`UserError` for a folder whose name is not a number.
    """
    inner = root / "imagenetv2-matched-frequency-format-val"
    images = inner if inner.is_dir() else root
    folders = class_folders(images)
    if odd := [name for name in folders if not name.isdecimal()]:
        raise UserError(f"{images / odd[0]} is not a class of imagenet_v2: expected folders 0 to 999")
    return _without_splits(images, sorted(folders, key=int), test_share)


def _without_splits(root: Path, classes: list[str], test_share: float | None) -> ListedDataset:
    if not classes:
        raise UserError(f"{root} holds no folders: expected one for each class")
    files = list_classes(root, classes)
    splits, options = with_all_splits({"train": picture_list(files)}, test_share)
    return ListedDataset(splits, tuple(classes), inputs_of(files), options)
