"""Readers that use torchvision's classes, which know the publishers' files and splits; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umd_bench.config.errors import UserError
from umd_bench.data.readers.picture_list import ListedDataset, PictureFile, PictureList, inputs_of, with_all_splits
from umd_bench.data.readers.pictures import FileRange


@dataclass(frozen=True)
class TorchvisionSet:
    """A data set of torchvision.

    ``kind`` is the name of its class in torchvision, ``splits`` the arguments of this class for each split, and ``expects`` the
    folder that it reads. ``as_arrays`` says whether it holds all images in memory.
    """

    kind: str
    splits: dict[str, dict[str, Any]]
    expects: str
    as_arrays: bool = False

    def read(self, root: Path, test_share: float | None) -> ListedDataset:
        """List the pictures. Raises :class:`UserError` with the expected folder if torchvision does not find its files."""
        lists, inputs = {}, []
        class_names: Sequence[str] = ()
        for split, arguments in self.splits.items():
            opened = self._open(root, arguments)
            class_names = tuple(opened.classes)
            lists[split] = self._arrays(opened, split) if self.as_arrays else _files(opened, root)
            inputs.append(_inputs(lists[split], split))
        named, options = with_all_splits(lists, test_share)
        return ListedDataset(named, tuple(class_names), "\n".join(inputs), options)

    def _open(self, root: Path, arguments: dict[str, Any]) -> Any:
        import torchvision.datasets

        try:
            return getattr(torchvision.datasets, self.kind)(str(root), download=False, **arguments)
        except (RuntimeError, OSError, KeyError, ValueError) as error:
            raise UserError(
                f"torchvision does not find {self.kind} below {root}: it expects a complete {root / self.expects} "
                f"({' '.join(str(error).replace('You can use download=True to download it', '').split())})"
            ) from None

    @staticmethod
    def _arrays(dataset: Any, split: str) -> PictureList:
        """The pictures in memory. CIFAR has uint8 [N, H, W, 3] and ``targets``, STL-10 uint8 [N, 3, H, W] and ``labels``."""
        pixels: np.ndarray[Any, Any] = dataset.data
        labels = np.asarray(dataset.targets if hasattr(dataset, "targets") else dataset.labels, np.int64)
        channels_last = pixels if pixels.shape[-1] == 3 else pixels.transpose(0, 2, 3, 1)
        return PictureList(
            labels, [f"{split} image {i}" for i in range(len(labels))], lambda i: np.ascontiguousarray(channels_last[i])
        )


def _files(dataset: Any, root: Path) -> PictureList:
    """The files of a data set, in the publisher's order; torchvision has them in private attributes only."""
    paths = [Path(path) for path in (dataset._images if hasattr(dataset, "_images") else dataset._image_files)]
    labels = np.asarray(dataset._labels, np.int64)
    names = [path.relative_to(root).as_posix() for path in paths]
    return PictureList(labels, names, lambda i: FileRange(str(paths[i])))


def _inputs(pictures: PictureList, split: str) -> str:
    """A text that identifies a split's raw files.

    For pictures in memory their number is enough, since torchvision has checked the files.
    """
    files = []
    if len(pictures) and isinstance(pictures.load(0), FileRange):
        for i, name in enumerate(pictures.names):
            where = pictures.load(i)
            assert isinstance(where, FileRange)
            files.append(PictureFile(name, 0, where, _size(Path(where.path))))
    return f"{split} {len(pictures)} {inputs_of(files)}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be opened ({error.strerror}), although the data set lists it") from None


_CIFAR_SPLITS: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_TRAIN_TEST: dict[str, dict[str, Any]] = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = _TRAIN_TEST | {"validation": {"split": "val"}}

READERS: dict[str, Callable[[Path, float | None], ListedDataset]] = {
    name: dataset.read
    for name, dataset in {
        "cifar10": TorchvisionSet("CIFAR10", _CIFAR_SPLITS, "cifar-10-batches-py", as_arrays=True),
        "cifar100": TorchvisionSet("CIFAR100", _CIFAR_SPLITS, "cifar-100-python", as_arrays=True),
        "stl10": TorchvisionSet("STL10", _TRAIN_TEST, "stl10_binary", as_arrays=True),
        "dtd": TorchvisionSet("DTD", _THREE, "dtd/dtd"),
        "oxford_pets": TorchvisionSet("OxfordIIITPet", _TRAIN_TEST | {"train": {"split": "trainval"}}, "oxford-iiit-pet"),
        "flowers102": TorchvisionSet("Flowers102", _THREE, "flowers-102"),
        "food101": TorchvisionSet("Food101", _TRAIN_TEST, "food-101"),
    }.items()
}
