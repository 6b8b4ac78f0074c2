"""The data set ``fashion_mnist``: 70,000 grey 28x28 images in IDX files, padded to 32x32 so that patches of 2, 4 and 8 fit."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import urllib.request
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed

CLASS_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
VARIABLE = "UMD_BENCH_FASHION_MNIST"
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SPLIT_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
# SHA-256 of the *unpacked* files, because the bytes of gz files depend on who compressed them. Names are not enough to tell the
# files from MNIST's, which have the same names.
PUBLISHED = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
N_VALIDATION_PER_CLASS = 500
_DOWNLOAD_TIMEOUT_S = 30


def read(folder: Path | None) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The "train" (55,000), "validation" (5,000) and "test" (10,000) splits: images uint8 [N, 1, 32, 32], labels int64 [N].

    The test split is the published one. The published training images of a class are ordered by :func:`derive_seed` of their
    number: the first 500 are validation images.

    The four IDX files, gzipped or not, are read from ``folder``, else from $UMD_BENCH_FASHION_MNIST, else from where Debian's
    package ``dataset-fashion-mnist`` puts them; else they are downloaded. Two zero pixels are added on each side. Source: Xiao,
    Rasul and Vollgraf, arXiv 1708.07747, 2017.

    Raises :class:`UserError` for a file that is missing, broken or not the published one, and for a failed download.
    """
    contents = {name: _published(name, *_content(name, folder)) for pair in SPLIT_FILES.values() for name in pair}
    splits = {}
    for split, (image_file, label_file) in SPLIT_FILES.items():
        images = parse_idx(contents[image_file], image_file)
        padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))[:, None]
        splits[split] = (padded, parse_idx(contents[label_file], label_file).astype(np.int64))
    images, labels = splits["train"]
    held_out = np.zeros(len(labels), np.bool_)
    for label in range(len(CLASS_NAMES)):
        members = sorted(np.flatnonzero(labels == label).tolist(), key=lambda i: derive_seed(0, "fashion_mnist/split", i))
        held_out[members[:N_VALIDATION_PER_CLASS]] = True
    return {
        "train": (images[~held_out], labels[~held_out]),
        "validation": (images[held_out], labels[held_out]),
        "test": splits["test"],
    }


def parse_idx(content: bytes, where: str) -> NDArray[np.uint8]:
    """An unpacked IDX file of unsigned bytes, as an array uint8 of the shape that the file declares.

    Format: bytes 0, 0, type (8: unsigned byte), number of dimensions n, then n big-endian uint32 sizes, then the values.
    Raises :class:`UserError`, naming ``where``, for another type and for a file that is shorter or longer than it declares.
    """
    if content[:3] != b"\x00\x00\x08" or len(content) < 4 or len(content) < 4 + 4 * content[3]:
        raise UserError(f"{where} is not an IDX file of unsigned bytes: expected it to begin with 00 00 08 and its sizes")
    start = 4 + 4 * content[3]
    shape = [int(size) for size in np.frombuffer(content[4:start], dtype=">u4")]
    if len(content) != start + math.prod(shape):
        raise UserError(f"{where} holds {len(content) - start} values, but declares {math.prod(shape)} {tuple(shape)}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def read_file(path: Path) -> bytes:
    """The content of a file, unpacked if it is gzipped. Raises :class:`UserError` if it cannot be read."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"{path} cannot be read ({error}); fetch it again") from None


def _content(name: str, folder: Path | None) -> tuple[bytes, str]:
    """The unpacked file ``name``, and the path or address that it came from."""
    variable = os.environ.get(VARIABLE)
    stated = folder if folder is not None else Path(variable) if variable else None
    searched = stated if stated is not None else DEBIAN_FOLDER
    for path in (searched / name, searched / f"{name}.gz"):
        if path.is_file():
            return read_file(path), str(path)
    if stated is not None:
        raise UserError(
            f"{stated} holds neither {name} nor {name}.gz: give the folder that holds Fashion-MNIST's four IDX files"
        )
    return _download(f"{name}.gz")


def _download(file: str) -> tuple[bytes, str]:
    """The unpacked ``file`` from the first mirror of torchvision's list that answers."""
    from torchvision.datasets import FashionMNIST

    reason = "no mirror is known"
    for mirror in FashionMNIST.mirrors:
        try:
            with urllib.request.urlopen(mirror + file, timeout=_DOWNLOAD_TIMEOUT_S) as response:
                return gzip.decompress(response.read()), mirror + file
        except (OSError, EOFError, zlib.error) as error:
            reason = f"{mirror + file}: {error}"
    raise UserError(
        f"fashion_mnist: {file} was not found and could not be downloaded ({reason}); install Debian's package "
        f"dataset-fashion-mnist, or name the folder that holds the four IDX files in ${VARIABLE}, or allow the download"
    )


def _published(name: str, content: bytes, where: str) -> bytes:
    """``content``; raises :class:`UserError` if it is not the published file."""
    parse_idx(content, where)  # so that an incomplete file gets its own error
    digest = hashlib.sha256(content).hexdigest()
    if digest != PUBLISHED[name]:
        raise UserError(
            f"{where} is not Fashion-MNIST's {name} (unpacked SHA-256 {digest[:12]}, expected {PUBLISHED[name][:12]}); "
            "MNIST's files have the same names"
        )
    return content
