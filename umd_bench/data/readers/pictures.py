"""Decoding of one picture: from the bytes of an image file to a square RGB array.

Decoding processes import this module, and with it only Pillow and numpy. The orientation in the EXIF data is applied, and the
centre square is cut out. Other colour modes become RGB: grey is repeated, CMYK and palettes are converted, 16-bit grey is
scaled to 8 bits, and transparent pixels are laid over white. Colour profiles are ignored. An animation gives its first picture.
"""

from __future__ import annotations

import io
import os
import signal
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import parent_process

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from umd_bench.config.errors import UserError


@dataclass(frozen=True)
class FileRange:
    """``length`` bytes of a file from ``offset`` (a member of a tar file); ``length`` None means to the end of the file."""

    path: str
    offset: int = 0
    length: int | None = None


# A picture before decoding: where its bytes are, the bytes themselves, or its pixels uint8 [H, W, 3].
Encoded = FileRange | bytes | NDArray[np.uint8]


def decode(encoded: Encoded, size: int, resize: str) -> NDArray[np.uint8] | str:
    """The picture as uint8 [3, size, size], or the reason, in one line, why it cannot be decoded.

    ``resize`` is a name in :data:`RESIZES`. Raises :class:`UserError` if the file cannot be opened, which is no fault of the
    picture.
    """
    content = _read(encoded) if isinstance(encoded, FileRange) else encoded
    if isinstance(content, bytes) and not content:
        return "it is empty"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of odd EXIF data and of large pictures, which can both be used
            rgb = _rgb(content)
            return np.ascontiguousarray(RESIZES[resize](rgb, size).transpose(2, 0, 1))
    except UnidentifiedImageError:
        return "it is no image in a format that Pillow knows"
    except Exception as error:  # a decoder may raise anything for broken bytes
        return " ".join(f"{error}".split()) or type(error).__name__


def decode_batch(pictures: list[Encoded], size: int, resize: str) -> list[NDArray[np.uint8] | str]:
    """:func:`decode` each picture; the task of a decoding process."""
    return [decode(picture, size, resize) for picture in pictures]


def init_decoding_process() -> None:
    """Leave interrupts to the parent process, and end this process when its parent ends.

    Without this, a process that waits for work would not notice that its parent was killed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _read(where: FileRange) -> bytes:
    try:
        with open(where.path, "rb", buffering=0) as file:  # noqa: PTH123 - a path object costs as much as a small read
            file.seek(where.offset)
            wanted = where.length if where.length is not None else os.fstat(file.fileno()).st_size
            parts, missing = [], wanted
            while missing > 0 and (part := file.read(missing)):
                parts.append(part)
                missing -= len(part)
            return b"".join(parts)
    except OSError as error:
        raise UserError(f"{where.path} cannot be opened ({error.strerror})") from None


def _rgb(content: bytes | NDArray[np.uint8]) -> Image.Image:
    """The picture, upright, in mode RGB."""
    if not isinstance(content, bytes):
        return Image.fromarray(content)
    opened = Image.open(io.BytesIO(content))
    opened.load()
    image = ImageOps.exif_transpose(opened)
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I;16") or (image.mode == "I" and opened.format == "PNG"):  # in a PNG, mode I has 16 bits too
        deep = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((deep * 255 + 32767) // 65535).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are 32-bit numbers (mode {image.mode}) of an unknown range")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _antialiased(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """The centre square, resized by Pillow's bicubic filter. It is antialiased, since the filter widens with the reduction."""
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=box))


def _adm(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """As ADM, DiT and later work prepare ImageNet (Dhariwal and Nichol, arXiv 2105.05233, and its code).

    The image is halved by averaging 2x2 pixels while its short side is at least twice ``size``, then resized to a short side of
    ``size`` by a bicubic filter. The corner of the centre square is rounded down to a pixel.
    """
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def _aliased(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """As the official implementation resizes in training: bilinear from the four nearest pixels, without antialiasing.

    Half-pixel centres as in ``tf.image.resize``: source = (i + 1/2) side / size - 1/2.
    """
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    at = (np.arange(size) + 0.5) * side / size - 0.5
    pixels = np.asarray(image)

    def between(start: float, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """The pixels before and after each position, and the weight of the pixel after it."""
        position = np.clip(at + start, 0, length - 1)
        before = np.floor(position).astype(np.int64)
        return before, np.minimum(before + 1, length - 1), (position - before).astype(np.float32)

    above, below, down = between(top, image.height)
    before, after, right = between(left, image.width)
    down, right = down[:, None, None], right[None, :, None]
    rows = [
        pixels[row][:, before].astype(np.float32) * (1 - right) + pixels[row][:, after].astype(np.float32) * right
        for row in (above, below)
    ]
    return np.rint(rows[0] * (1 - down) + rows[1] * down).astype(np.uint8)


# Ways to resize the centre square to size x size pixels: image RGB -> uint8 [size, size, 3].
RESIZES: dict[str, Callable[[Image.Image, int], NDArray[np.uint8]]] = {
    "antialiased": _antialiased,
    "adm": _adm,
    "aliased": _aliased,
}
