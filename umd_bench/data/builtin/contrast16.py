"""The data set ``contrast16``: 16x16 grey images made from scikit-learn's digits, with random contrast, polarity and pose.

A linear read-out of raw pixels fails on these images, because the figure may be brighter or darker than the ground. A small
network trained with labels has an accuracy of 96%. So a representation can be better than raw pixels and than random weights.
Every image is a function of its split and number. No two splits are made from the same digit of the source.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.data.builtin import digits

CLASS_NAMES = digits.CLASS_NAMES
SIZE = 16
COUNTS = {"train": 60_000, "validation": 5_000, "test": 5_000}
# SHA-256 of the images, then the labels, of each split. Another processor may round a cosine differently, and another version
# of numpy may draw differently; the digest shows whether a pixel changed.
PUBLISHED = {
    "train": "e06696e3ee041c6013b3d522bde125968fd7fe3c8563bb0ac48ca8955e88d531",
    "validation": "971617f35190b75fe8109c7236a8957268e30658e9f901ee0bc46c372df5ce7f",
    "test": "e56b89fa0f05ed56dda8f9737cad59de9a7519d6dc1288fa95ca9ff363348e39",
}

_SCALE = (1.6, 2.1)  # output pixels per source pixel
_STRETCH = (0.85, 1.15)  # scale of the width, relative to the scale of the height
_ROTATION = 15.0  # degrees, either way
_SHIFT = 1.5  # pixels, either way
_LEAST_CONTRAST = 0.4  # between figure and ground, whose greys are in [0, 1]
_ROWS = 4_000  # images drawn from one generator; another number would give other images


def read(folder: Path | None) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The "train" (60,000), "validation" (5,000) and "test" (5,000) splits: images uint8 [N, 1, 16, 16], labels int64 [N].

    The images of a split are made from the digits of the same split (:mod:`digits`). Raises :class:`UserError` if ``folder`` is
    given, since nothing is read from a folder, and if a split has another digest than :data:`PUBLISHED`.
    """
    if folder is not None:
        raise UserError(
            f"contrast16 is made from scikit-learn's digits, not read from a folder, but {folder} was given: leave it out"
        )
    made = {split: make(split, *source, COUNTS[split]) for split, source in digits.read(None).items()}
    for split, (images, labels) in made.items():
        digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
        if digest != PUBLISHED[split]:
            raise UserError(
                f"contrast16's {split} split came out different on this machine (SHA-256 {digest[:12]}, expected "
                f"{PUBLISHED[split][:12]}), so its numbers could not be compared: report the versions of numpy and scikit-learn"
            )
    return made


def make(
    split: str, source: NDArray[np.uint8], labels: NDArray[np.int64], n: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """The first ``n`` images of a split, uint8 [n, 1, 16, 16], and their labels int64 [n].

    ``source`` uint8 [N, 1, 8, 8] are the digits to draw from, and ``labels`` int64 [N] their classes.
    """
    strength = source[:, 0].astype(np.float64) / 255
    images, chosen = [], []
    for first in range(0, n, _ROWS):
        rng = np.random.default_rng(derive_seed(0, f"contrast16/{split}", first))
        rows = rng.integers(0, len(labels), _ROWS)
        figure = _posed(strength[rows], rng)
        ground, grey = _greys(_ROWS, rng)
        pixels = ground[:, None, None] * (1 - figure) + grey[:, None, None] * figure
        images.append((pixels * 255 + 0.5).astype(np.uint8))
        chosen.append(labels[rows])
    return np.concatenate(images)[:n, None], np.concatenate(chosen)[:n]


def _posed(source: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Each digit [N, 8, 8] scaled, stretched, rotated and shifted: [N, 16, 16] in [0, 1], bilinear, 0 outside the source."""
    N, side = source.shape[:2]
    scale, stretch = rng.uniform(*_SCALE, (N, 1, 1)), rng.uniform(*_STRETCH, (N, 1, 1))
    angle = np.deg2rad(rng.uniform(-_ROTATION, _ROTATION, (N, 1, 1)))
    centre = (SIZE - 1) / 2 + rng.uniform(-_SHIFT, _SHIFT, (2, N))
    y = np.arange(SIZE)[None, :, None] - centre[0][:, None, None]
    x = np.arange(SIZE)[None, None, :] - centre[1][:, None, None]
    cos, sin = np.cos(angle), np.sin(angle)
    middle = (side - 1) / 2
    row = (cos * y - sin * x) / scale + middle
    column = (cos * x + sin * y) / (scale * stretch) + middle
    # A border of zeros, so that the interpolation needs no special case at the edge.
    padded = np.pad(source, ((0, 0), (1, 1), (1, 1)))
    row, column = (np.clip(place + 1, 0, side + 1) for place in (row, column))
    top, left = (np.minimum(place.astype(np.int64), side) for place in (row, column))
    down, right = row - top, column - left
    image = np.arange(N)[:, None, None]
    upper = padded[image, top, left] * (1 - right) + padded[image, top, left + 1] * right
    lower = padded[image, top + 1, left] * (1 - right) + padded[image, top + 1, left + 1] * right
    posed: NDArray[np.float64] = np.clip(upper * (1 - down) + lower * down, 0, 1)
    return posed


def _greys(N: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The greys of ground and figure, both [N] in [0, 1]: either may be the brighter, by at least ``_LEAST_CONTRAST``."""
    contrast = rng.uniform(_LEAST_CONTRAST, 1, N)
    dark = rng.random(N) * (1 - contrast)
    bright = dark + contrast
    inverted = rng.random(N) < 0.5
    return np.where(inverted, bright, dark), np.where(inverted, dark, bright)
