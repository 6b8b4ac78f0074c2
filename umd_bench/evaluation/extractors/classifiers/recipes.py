"""The small classifiers: their shapes, how they are trained, and the weights of those that come with the package.

This module does not import torch, because the checks before a sweep import it.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.contract import ExtractorFacts

WEIGHTS = Path(__file__).parent / "weights"
LICENCE = "Apache-2.0"

# The classifier of any other data set sees about this many training images in all, but for at least 5 and at most 60 epochs.
_IMAGES_SEEN = 600_000


@dataclass(frozen=True)
class Recipe:
    """A classifier's shape and how it is trained. ``size`` is in pixels; each of ``widths`` halves it."""

    data: str
    size: int
    channels: int
    classes: int
    widths: tuple[int, ...]
    dim: int  # D, the penultimate layer
    epochs: int
    shift: int  # largest random shift in pixels, each way
    flip: bool = False
    batch: int = 128
    lr: float = 2e-3  # times a linear warm-up over the first tenth of the steps, times a cosine decay


# The committed classifiers. Their values are written out, so that a change of recipe_for() does not change them.
RECIPES: dict[str, Recipe] = {
    "digits_cnn": Recipe("digits", size=8, channels=1, classes=10, widths=(32, 64), dim=64, epochs=60, shift=1),
    "contrast16_cnn": Recipe("contrast16", size=16, channels=1, classes=10, widths=(32, 64), dim=64, epochs=8, shift=1),
    "fashion_cnn": Recipe("fashion_mnist", size=32, channels=1, classes=10, widths=(16, 32, 64), dim=128, epochs=5, shift=1),
    "emoji_cnn": Recipe(
        "emoji64", size=64, channels=3, classes=9, widths=(16, 32, 64, 64), dim=128, epochs=30, shift=4, flip=True
    ),
}


def recipe_for(
    data: str, *, size: int, channels: int, classes: int, n_train: int, epochs: int | None = None, flip: bool = False
) -> Recipe:
    """The recipe of a data set's classifier, from the size, channels and number of its ``n_train`` training images.

    The image is halved until its side is 4 to 7 pixels, but at least twice. The last layer has 64 channels for grey images, 128
    for others; each earlier layer has half as many as the next, but at least 16. Small sets have small batches, so that an
    epoch has about 16 steps or more. Images are not flipped unless ``flip``, since a flipped digit or letter loses its label.
    """
    halvings = max(min(2, int(math.log2(size))), int(math.log2(size / 4)))
    last = 64 if channels == 1 else 128
    return Recipe(
        data,
        size,
        channels,
        classes,
        widths=tuple(max(16, last >> (halvings - 1 - layer)) for layer in range(halvings)),
        dim=64 if size <= 16 else 128,
        epochs=epochs if epochs is not None else min(60, max(5, math.ceil(_IMAGES_SEEN / n_train))),
        shift=max(1, size // 16),
        flip=flip,
        batch=min(128, max(8, n_train // 16)),
    )


def facts_of(name: str, recipe: Recipe, licence: str = LICENCE) -> ExtractorFacts:
    """The facts of the classifier ``name``, trained by ``recipe``; ``licence`` is that of the weights."""
    return ExtractorFacts(
        name=name,
        data=recipe.data,
        shape=(recipe.channels, recipe.size, recipe.size),
        dim=recipe.dim,
        resize="none",
        licence=licence,
        has_logits=True,
    )


def find_weights(name: str, folder: Path | None = None) -> tuple[bytes, str]:
    """The contents of ``<name>.safetensors`` in ``folder`` (None: the package's) and their SHA-256, in hex.

    Raises :class:`UserError` if a file is missing, or if the weights are not those that ``<name>.json`` describes.
    """
    folder = folder or WEIGHTS
    path = folder / f"{name}.safetensors"
    try:
        weights = path.read_bytes()
        expected = json.loads((folder / f"{name}.json").read_text())["sha256"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise UserError(f"the extractor {name} cannot be read from {folder} ({error}): install the package again") from None
    actual = hashlib.sha256(weights).hexdigest()
    if actual != expected:
        raise UserError(
            f"{path} is not the extractor that scores were made with (SHA-256 {actual[:12]}, expected {expected[:12]}): "
            "install the package again"
        )
    return weights, actual


def test_accuracy(name: str) -> float:
    """The share, in [0, 1], of test images that the shipped classifier ``name`` gets right. Raises as :func:`find_weights`."""
    find_weights(name)
    return float(json.loads((WEIGHTS / f"{name}.json").read_text())["test_accuracy"])


def hash_weights(name: str) -> str:
    """The SHA-256 of the package's weights, in hex. Raises as :func:`find_weights`."""
    return find_weights(name)[1]
