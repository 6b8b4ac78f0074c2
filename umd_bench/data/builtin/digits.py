"""The data set ``digits``: 1,797 real 8x8 grey images that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed

CLASS_NAMES = tuple(str(digit) for digit in range(10))
N_TEST_PER_CLASS = 50
N_VALIDATION_PER_CLASS = 25


def read(folder: Path | None) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The "train" (1,047), "validation" (250) and "test" (500) splits: images uint8 [N, 1, 8, 8], labels int64 [N].

    The published set has no splits. Here the images of a digit are ordered by :func:`derive_seed` of their number. The first
    fifty are test images, and the next twenty-five validation images. So the splits do not depend on a library's random
    generator and never change. Pixels 0..16 become 0..255 by rounding ``value * 255 / 16`` (half up), which keeps the seventeen
    values distinct and maps 16 to 255.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998, as ``sklearn.datasets.load_digits``.
    Raises :class:`UserError` if ``folder`` is given, since nothing is read from a folder.
    """
    if folder is not None:
        raise UserError(f"digits come with scikit-learn and are not read from a folder, but {folder} was given: leave it out")
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = ((pixels.astype(np.int64) * 255 + 8) // 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = labels.astype(np.int64)
    split = np.full(len(labels), "train", dtype=object)
    for digit in range(10):
        members = sorted(np.flatnonzero(labels == digit).tolist(), key=lambda i: derive_seed(0, "digits/split", i))
        split[members[:N_TEST_PER_CLASS]] = "test"
        split[members[N_TEST_PER_CLASS : N_TEST_PER_CLASS + N_VALIDATION_PER_CLASS]] = "validation"
    return {name: (images[split == name], labels[split == name]) for name in ("train", "validation", "test")}
