"""Readers of data sets through torchvision's classes, which know the publishers' files and splits; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umd_bench.config.errors import UserError
from umd_bench.data.readers.picture_list import Album, Collection, Listed, inputs_of, with_test_split
from umd_bench.data.readers.pictures import FileRange


@dataclass(frozen=True)
class TorchvisionSet:
    """``kind`` is torchvision's class; ``splits`` are the arguments that ask it for each split; ``expects`` is its folder."""

    kind: str
    splits: dict[str, dict[str, Any]]
    expects: str
    as_arrays: bool = False

    def read(self, root: Path, test_share: float | None) -> Collection:
        """Raises :class:`UserError` where torchvision does not find its files, naming the folder that it expects."""
        albums, inputs = {}, []
        class_names: Sequence[str] = ()
        for split, arguments in self.splits.items():
            found = self._open(root, arguments)
            class_names = tuple(found.classes)
            albums[split] = self._arrays(found, split) if self.as_arrays else _files(found, root)
            inputs.append(_inputs(albums[split], split))
        named, options = with_test_split(albums, test_share)
        return Collection(named, tuple(class_names), "\n".join(inputs), options)

    def _open(self, root: Path, arguments: dict[str, Any]) -> Any:
        import torchvision.datasets

        try:
            return getattr(torchvision.datasets, self.kind)(str(root), download=False, **arguments)
        except (RuntimeError, OSError, KeyError, ValueError) as error:
            raise UserError(
                f"torchvision does not find {self.kind} below {root}: it expects {root / self.expects} there, complete "
                f"({' '.join(str(error).replace('You can use download=True to download it', '').split())})"
            ) from None

    @staticmethod
    def _arrays(found: Any, split: str) -> Album:
        """CIFAR keeps uint8 [N, H, W, 3], STL-10 uint8 [N, 3, H, W]; both name their labels differently."""
        pixels: np.ndarray[Any, Any] = found.data
        labels = np.asarray(found.targets if hasattr(found, "targets") else found.labels, np.int64)
        upright = pixels if pixels.shape[-1] == 3 else pixels.transpose(0, 2, 3, 1)
        return Album(labels, [f"{split} image {i}" for i in range(len(labels))], lambda i: np.ascontiguousarray(upright[i]))


def _files(found: Any, root: Path) -> Album:
    """The files behind a data set of files, in the publisher's order. torchvision keeps their list to itself."""
    paths = [Path(path) for path in (found._images if hasattr(found, "_images") else found._image_files)]
    labels = np.asarray(found._labels, np.int64)
    names = [path.relative_to(root).as_posix() for path in paths]
    return Album(labels, names, lambda i: FileRange(str(paths[i])))


def _inputs(album: Album, split: str) -> str:
    """What the raw files of a split are; arrays are known by torchvision's own checksums, so their number says enough."""
    places = [album.load(i) for i in range(len(album))] if len(album) and isinstance(album.load(0), FileRange) else []
    listed = [
        Listed(name, 0, place, _size(Path(place.path)))
        for name, place in zip(album.names, places, strict=False)
        if isinstance(place, FileRange)
    ]
    return f"{split} {len(album)} {inputs_of(listed)}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} cannot be opened ({error.strerror}): the data set lists it") from None


_CIFAR_SPLITS: dict[str, dict[str, Any]] = {"train": {"train": True}, "test": {"train": False}}
_TRAIN_TEST: dict[str, dict[str, Any]] = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = _TRAIN_TEST | {"validation": {"split": "val"}}

READERS: dict[str, Callable[[Path, float | None], Collection]] = {
    name: found.read
    for name, found in {
        "cifar10": TorchvisionSet("CIFAR10", _CIFAR_SPLITS, "cifar-10-batches-py", as_arrays=True),
        "cifar100": TorchvisionSet("CIFAR100", _CIFAR_SPLITS, "cifar-100-python", as_arrays=True),
        "stl10": TorchvisionSet("STL10", _TRAIN_TEST, "stl10_binary", as_arrays=True),
        "dtd": TorchvisionSet("DTD", _THREE, "dtd/dtd"),
        "oxford_pets": TorchvisionSet("OxfordIIITPet", _TRAIN_TEST | {"train": {"split": "trainval"}}, "oxford-iiit-pet"),
        "flowers102": TorchvisionSet("Flowers102", _THREE, "flowers-102"),
        "food101": TorchvisionSet("Food101", _TRAIN_TEST, "food-101"),
    }.items()
}
