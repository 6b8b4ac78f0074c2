"""Sets of samples as files, written and read a batch at a time, so that memory does not grow with N.

The format is that of ADM's evaluation (Dhariwal and Nichol, arXiv 2105.05233): an .npz with ``arr_0``, uint8 [N, H, W, 3], and
optional labels [N] as ``arr_1``. A folder of PNG files (in the order of their names) and an .npy of the same shape can be read
too. Grey images are written with three equal channels and read back as one channel.

Shapes: N samples, B samples at once, C channels, H, W.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from umd_bench.config.errors import UserError

_ARRAY, _LABELS = "arr_0.npy", "arr_1.npy"
_BATCH = 250


class SampleWriter:
    """A context that writes ``n`` samples, in their order, into the .npz ``path``; the file appears when it is complete.

    ``label`` [n] int64 is written too, if given.
    """

    def __init__(self, path: Path, n: int, label: Tensor | None = None) -> None:
        self._n, self._label = n, label
        self._path, self._written = path, 0
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}")
        self._archive = zipfile.ZipFile(self._temporary, "w", zipfile.ZIP_STORED)
        self._file: IO[bytes] | None = None

    def add(self, images: Tensor) -> None:
        """Append uint8 ``images`` [B, C, H, W], C = 1 or 3."""
        rgb = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
        if self._file is None:
            self._file = self._archive.open(_ARRAY, "w", force_zip64=True)
            _write_header(self._file, np.dtype(np.uint8), (self._n, *rgb.shape[1:]))
        self._file.write(rgb.contiguous().numpy().tobytes())
        self._written += len(images)

    def __enter__(self) -> SampleWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._file is not None:
            self._file.close()
        if kind is None and self._label is not None:
            with self._archive.open(_LABELS, "w") as file:
                labels = self._label.numpy().astype(np.int64)
                _write_header(file, labels.dtype, labels.shape)
                file.write(labels.tobytes())
        self._archive.close()
        if kind is None and self._written == self._n:
            self._temporary.replace(self._path)
        else:
            self._temporary.unlink()


@dataclass(frozen=True)
class SampleFile:
    """A file or folder of ``n`` samples of ``height`` x ``width`` pixels and ``channels``."""

    path: Path
    n: int
    height: int
    width: int
    channels: int

    def batches(self, channels: int, size: int = _BATCH) -> Iterator[tuple[int, Tensor]]:
        """``(first sample, uint8 images [B, C, H, W])`` of each batch, in order; C is ``channels``.

        Raises :class:`UserError` for images with another number of channels, for an image of another size, and for a file
        that ends early. Colour images whose channels are all the same count as grey.
        """
        start = 0
        for images in self._read_arrays(size):
            yield start, _with_channels(images, channels, f"{self.path}: samples {start}..{start + len(images) - 1}")
            start += len(images)

    def _read_arrays(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """The samples as stored, in batches: uint8 [B, H, W, C]."""
        if self.path.is_dir():
            yield from self._read_pictures(size)
            return
        shape = (self.height, self.width, self.channels)
        with _open_npy(self.path) as file:
            _read_header(file, self.path)
            for start in range(0, self.n, size):
                n = min(size, self.n - start)
                data = file.read(n * int(np.prod(shape)))
                if len(data) != n * int(np.prod(shape)):
                    raise UserError(f"{self.path} ends within samples {start}..{start + n - 1} of the {self.n} it should hold")
                yield np.frombuffer(data, np.uint8).reshape(n, *shape)

    def _read_pictures(self, size: int) -> Iterator[NDArray[np.uint8]]:
        files = _png_files(self.path)
        expected = (self.height, self.width, self.channels)
        for start in range(0, self.n, size):
            images = []
            for file in files[start : start + size]:
                image = _read_picture(file)
                if image.shape != expected:
                    raise UserError(
                        f"{file} has {_dimensions(image.shape)}, others {_dimensions(expected)}: expected one shape"
                    )
                images.append(image)
            yield np.stack(images)


def open_samples(path: Path) -> SampleFile:
    """The samples in an .npz of ADM's format, an .npy, or a folder of PNG files; this reads only their shape.

    Raises :class:`UserError` if nothing is there, and for another format, shape or dtype.
    """
    if path.is_dir():
        files = _png_files(path)
        if not files:
            raise UserError(f"{path} holds no PNG files: expected a folder of PNGs, an .npz with arr_0, or an .npy")
        return SampleFile(path, len(files), *_read_picture(files[0]).shape)
    with _open_npy(path) as file:
        shape, fortran, dtype = _read_header(file, path)
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or fortran:
        raise UserError(f"{path} holds {dtype} {list(shape)}: expected uint8 [N, H, W, 3] or [N, H, W, 1], in C order")
    return SampleFile(path, *shape)


def _open_npy(path: Path) -> IO[bytes]:
    """The .npy itself, or the ``arr_0`` inside an .npz."""
    if path.suffix not in (".npz", ".npy"):
        raise UserError(f"{path} is not accepted: expected a folder of PNGs, an .npz with arr_0, or an .npy")
    try:
        return path.open("rb") if path.suffix == ".npy" else zipfile.ZipFile(path).open(_ARRAY)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): expected an .npz with arr_0 or an .npy") from None
    except (zipfile.BadZipFile, KeyError):
        raise UserError(f"{path} is no .npz with an arr_0: expected ADM's format, uint8 [N, H, W, 3] as arr_0") from None


def read_npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran order, and dtype of the .npy that starts at the file's position; the data follows.

    Raises ``ValueError`` or ``EOFError`` if no .npy starts there.
    """
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    return shape, fortran, dtype


def _read_header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    try:
        return read_npy_header(file)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is no array that numpy saved ({error}): expected uint8 [N, H, W, 3]") from None


def _write_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )


def _png_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def _read_picture(file: Path) -> NDArray[np.uint8]:
    """uint8 [H, W, C] of a grey or RGB image."""
    try:
        with Image.open(file) as image:
            if image.mode not in ("L", "RGB"):
                raise UserError(f"{file} is of mode {image.mode}: expected 8-bit grey or RGB without transparency")
            pixels = np.asarray(image)
    except OSError as error:
        raise UserError(f"{file} cannot be read as an image ({error})") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _with_channels(images: NDArray[np.uint8], channels: int, subject: str) -> Tensor:
    """uint8 [B, H, W, C] -> uint8 [B, ``channels``, H, W]; ``subject`` begins the error for images that do not fit."""
    if channels == 1 and images.shape[3] == 3:
        if (images != images[..., :1]).any():
            raise UserError(f"{subject} are colour images: expected grey images, as in the data set")
        images = images[..., :1]
    elif images.shape[3] != channels:
        raise UserError(f"{subject} have {images.shape[3]} channel: expected {channels}, as in the data set")
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _dimensions(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
