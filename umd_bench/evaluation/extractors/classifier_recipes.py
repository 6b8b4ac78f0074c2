"""The small classifiers: their shapes, how they are trained, and their weights, which come with the package.

This module does not import torch, because the checks before a sweep import it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.contract import ExtractorFacts

WEIGHTS = Path(__file__).parent / "weights"


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
    lr: float = 2e-3  # peak; one warm-up, one cosine


RECIPES: dict[str, Recipe] = {
    "digits_cnn": Recipe("digits", size=8, channels=1, classes=10, widths=(32, 64), dim=64, epochs=60, shift=1),
    "contrast16_cnn": Recipe("contrast16", size=16, channels=1, classes=10, widths=(32, 64), dim=64, epochs=8, shift=1),
    "fashion_cnn": Recipe("fashion_mnist", size=32, channels=1, classes=10, widths=(16, 32, 64), dim=128, epochs=5, shift=1),
    "emoji_cnn": Recipe(
        "emoji64", size=64, channels=3, classes=9, widths=(16, 32, 64, 64), dim=128, epochs=30, shift=4, flip=True
    ),
}


def facts_of(name: str) -> ExtractorFacts:
    """The facts of the classifier ``RECIPES[name]``."""
    recipe = RECIPES[name]
    return ExtractorFacts(
        name=name,
        data=recipe.data,
        shape=(recipe.channels, recipe.size, recipe.size),
        dim=recipe.dim,
        resize="none",
        licence="Apache-2.0",
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


def hash_weights(name: str) -> str:
    """The SHA-256 of the package's weights, in hex. Raises as :func:`find_weights`."""
    return find_weights(name)[1]
