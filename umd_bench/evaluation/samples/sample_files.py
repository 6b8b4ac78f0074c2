"""Sets of samples as files: written and read a batch at a time, so that memory does not grow with their number.

The format is that of ADM's evaluation (Dhariwal and Nichol, arXiv 2105.05233): an .npz whose ``arr_0`` is uint8 [N, H, W, 3],
with the labels [N] as ``arr_1`` where there are any. A folder of PNG files, in the order of their names, and an .npy of the
same shape are read too. Grey images are written with three equal channels and read back as one.

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
    """Writes ``n`` samples, in their order, into the .npz ``path``, which appears when all are there; a context.

    ``label`` [n] int64 is written too where there is one.
    """

    def __init__(self, path: Path, n: int, label: Tensor | None = None) -> None:
        self._n, self._label = n, label
        self._path, self._written = path, 0
        self._beside = path.with_name(f".{path.name}.{os.getpid()}")
        self._archive = zipfile.ZipFile(self._beside, "w", zipfile.ZIP_STORED)
        self._file: IO[bytes] | None = None

    def add(self, images: Tensor) -> None:
        """Write uint8 ``images`` [B, C, H, W] next, C = 1 or 3."""
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
            self._beside.replace(self._path)
        else:
            self._beside.unlink()


@dataclass(frozen=True)
class SampleFile:
    """Samples that somebody has written: ``n`` of them, ``height`` x ``width`` pixels with ``channels``."""

    path: Path
    n: int
    height: int
    width: int
    channels: int

    def batches(self, channels: int, size: int = _BATCH) -> Iterator[tuple[int, Tensor]]:
        """The first sample's number and uint8 [B, C, H, W] images of each batch, in order, with ``channels`` of them.

        Raises :class:`UserError` for colours where grey is asked for, an image of another size, and a file that ends early.
        """
        start = 0
        for images in self._stored(size):
            yield start, _with_channels(images, channels, f"{self.path}: samples {start}..{start + len(images) - 1}")
            start += len(images)

    def _stored(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """uint8 [B, H, W, C]."""
        if self.path.is_dir():
            yield from self._pictures(size)
            return
        shape = (self.height, self.width, self.channels)
        with _opened(self.path) as file:
            _read_header(file, self.path)
            for start in range(0, self.n, size):
                n = min(size, self.n - start)
                data = file.read(n * int(np.prod(shape)))
                if len(data) != n * int(np.prod(shape)):
                    raise UserError(f"{self.path} ends within samples {start}..{start + n - 1} of the {self.n} it should hold")
                yield np.frombuffer(data, np.uint8).reshape(n, *shape)

    def _pictures(self, size: int) -> Iterator[NDArray[np.uint8]]:
        files = _files(self.path)
        expected = (self.height, self.width, self.channels)
        for start in range(0, self.n, size):
            images = []
            for file in files[start : start + size]:
                image = _picture(file)
                if image.shape != expected:
                    raise UserError(f"{file} has {_of(image.shape)}, others {_of(expected)}: expected one shape")
                images.append(image)
            yield np.stack(images)


def open_samples(path: Path) -> SampleFile:
    """The samples in an .npz of ADM's format, an .npy, or a folder of PNG files; nothing but their shape is read.

    Raises :class:`UserError` where there is nothing, and for another format, shape or dtype.
    """
    if path.is_dir():
        files = _files(path)
        if not files:
            raise UserError(f"{path} holds no PNG files: expected a folder of PNGs, an .npz with arr_0, or an .npy")
        return SampleFile(path, len(files), *_picture(files[0]).shape)
    with _opened(path) as file:
        shape, dtype, fortran = _read_header(file, path)
    if dtype != np.uint8 or len(shape) != 4 or shape[3] not in (1, 3) or fortran:
        raise UserError(f"{path} holds {dtype} {list(shape)}: expected uint8 [N, H, W, 3] or [N, H, W, 1], in C order")
    return SampleFile(path, *shape)


def _opened(path: Path) -> IO[bytes]:
    """The .npy itself, or the one in an .npz that holds the images."""
    if path.suffix not in (".npz", ".npy"):
        raise UserError(f"{path} is not accepted: expected a folder of PNGs, an .npz with arr_0, or an .npy")
    try:
        return path.open("rb") if path.suffix == ".npy" else zipfile.ZipFile(path).open(_ARRAY)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): expected an .npz with arr_0 or an .npy") from None
    except (zipfile.BadZipFile, KeyError):
        raise UserError(f"{path} is no .npz with an arr_0: expected ADM's format, uint8 [N, H, W, 3] as arr_0") from None


def _read_header(file: IO[bytes], path: Path) -> tuple[tuple[int, ...], np.dtype[Any], bool]:
    """Shape, dtype and whether it is in Fortran order; the images' bytes follow."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except (ValueError, EOFError) as error:
        raise UserError(f"{path} is no array that numpy saved ({error}): expected uint8 [N, H, W, 3]") from None
    return shape, dtype, fortran


def _write_header(file: IO[bytes], dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(
        file, {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    )


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def _picture(file: Path) -> NDArray[np.uint8]:
    """uint8 [H, W, C] of a grey or RGB image."""
    try:
        with Image.open(file) as image:
            if image.mode not in ("L", "RGB"):
                raise UserError(f"{file} is of mode {image.mode}: expected 8-bit grey or RGB without transparency")
            pixels = np.asarray(image)
    except OSError as error:
        raise UserError(f"{file} cannot be read as an image ({error})") from None
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _with_channels(images: NDArray[np.uint8], channels: int, what: str) -> Tensor:
    if channels == 1 and images.shape[3] == 3:
        if (images != images[..., :1]).any():
            raise UserError(f"{what} are colour images: expected grey ones, as the data set's are")
        images = images[..., :1]
    elif images.shape[3] != channels:
        raise UserError(f"{what} have {images.shape[3]} channel: expected {channels}, as the data set's images have")
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


def _of(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
