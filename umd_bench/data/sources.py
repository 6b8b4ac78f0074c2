"""The table of data sets: what is known about each and the function that reads it.

A new data set is a `read` function (in a file of its own) and a row of `SOURCES`. What a source reads is packed once
(pack.py) and never read again by training.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import FieldError, one_of
from umd_bench.data import digits, emoji64, fashion_mnist

# {"train": (images uint8 [N, C, H, W], labels int64 [N]), "test": ...}
Splits = dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]


def _no_notes(folder: Path | None, n_kept: int) -> dict[str, str]:
    return {}


@dataclass(frozen=True)
class DataSource:
    """The facts of one data set.

    ``version`` goes up whenever the same input would be read as other images, labels or splits. ``size`` is the side of the
    square images in pixels. ``read(folder)`` takes a folder that holds the raw files, or None to look in the usual places, and
    raises :class:`UserError` where they are missing. ``notes(folder, n_kept)`` says, for the record only, which raw files these
    are and what was left out of them; ``n_kept`` counts the images of both splits.
    """

    name: str
    version: int
    size: int
    channels: int
    class_names: tuple[str, ...]
    licence: str
    read: Callable[[Path | None], Splits]
    notes: Callable[[Path | None, int], dict[str, str]] = _no_notes


SOURCES: dict[str, DataSource] = {
    "digits": DataSource(
        name="digits",
        version=1,
        size=8,
        channels=1,
        class_names=digits.CLASS_NAMES,
        licence="CC BY 4.0 (UCI, Optical Recognition of Handwritten Digits)",
        read=digits.read,
    ),
    "fashion_mnist": DataSource(
        name="fashion_mnist",
        version=1,
        size=32,
        channels=1,
        class_names=fashion_mnist.CLASS_NAMES,
        licence="MIT",
        read=fashion_mnist.read,
    ),
    "emoji64": DataSource(
        name="emoji64",
        version=1,
        size=64,
        channels=3,
        class_names=emoji64.CLASS_NAMES,
        licence="OFL-1.1 (Noto Color Emoji)",
        read=emoji64.read,
        notes=emoji64.describe,
    ),
}


def source(name: str) -> DataSource:
    """The data set of that name; an unknown one raises :class:`FieldError` for ``data.name`` listing the valid names."""
    if name not in SOURCES:
        raise FieldError("data.name", name, one_of(SOURCES))
    return SOURCES[name]
