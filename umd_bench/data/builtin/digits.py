"""The data set ``digits``: 1,797 real 8x8 grey images that come with scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed

CLASS_NAMES = tuple(str(digit) for digit in range(10))
N_TEST_PER_CLASS = 50


def read(folder: Path | None) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    """The "train" (1,297) and "test" (500, fifty of each digit) splits: images uint8 [N, 1, 8, 8], labels int64 [N].

    The published set has no splits. Here the test images of a digit are the fifty whose number has the smallest
    :func:`derive_seed`, so the split does not depend on a library's random generator and never changes. Pixels 0..16 become
    0..255 by rounding ``value * 255 / 16`` (half up), which keeps the seventeen values distinct and maps 16 to 255.

    Source: Alpaydin and Kaynak, "Optical Recognition of Handwritten Digits", UCI, 1998, as ``sklearn.datasets.load_digits``.
    Raises :class:`UserError` if ``folder`` is given, since nothing is read from a folder.
    """
    if folder is not None:
        raise UserError(f"digits come with scikit-learn and are not read from a folder, but {folder} was given: leave it out")
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = ((pixels.astype(np.int64) * 255 + 8) // 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    labels = labels.astype(np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    for digit in range(10):
        members = np.flatnonzero(labels == digit).tolist()
        is_test[sorted(members, key=lambda i: derive_seed(0, "digits/split", i))[:N_TEST_PER_CLASS]] = True
    return {"train": (images[~is_test], labels[~is_test]), "test": (images[is_test], labels[is_test])}
