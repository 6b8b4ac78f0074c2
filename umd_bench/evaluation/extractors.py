"""Feature extractors: which there are, and how each turns images into features and class scores.

Shapes: B batch, C channels, H, W, D features, K classes. A new extractor is a row of :data:`EXTRACTORS`. Distances of two
extractors are never compared: every score carries its extractor's name and the hash of its weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.data.loader import to_unit
from umd_bench.data.sources import DataFacts
from umd_bench.evaluation.classifier import RECIPES, Recipe, build_classifier, read_weights
from umd_bench.store.files import read_json

WEIGHTS = Path(__file__).parent / "weights"

# float32 [B, C, H, W] in [-1, 1] -> features [B, D], logits [B, K]
Network = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Extractor:
    """A loaded extractor. ``hash`` is the SHA-256 of its weights, in hex; ``shape`` is (C, H, W)."""

    name: str
    hash: str
    shape: tuple[int, int, int]
    network: Network
    device: torch.device

    @torch.inference_mode()
    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, C, H, W], 0..255 -> features float32 [B, D] and logits float32 [B, K], on the CPU.

        Raises :class:`UserError` for another dtype or shape.
        """
        if images.dtype != torch.uint8 or images.shape[1:] != self.shape:
            dtype = str(images.dtype).removeprefix("torch.")
            raise UserError(
                f"{self.name} does not take {dtype} images of shape {list(images.shape)}: "
                f"expected uint8 of shape [B, {', '.join(map(str, self.shape))}]"
            )
        features, logits = self.network(to_unit(images.to(self.device)))
        return features.float().cpu(), logits.float().cpu()


@dataclass(frozen=True)
class ExtractorFacts:
    """A row: the data set it was trained on and whose classes it reads, its input (C, H, W), D, and how it is loaded."""

    data: str
    shape: tuple[int, int, int]
    dim: int
    load: Callable[[torch.device], Extractor]


def _load_classifier(name: str, device: torch.device) -> Extractor:
    state, digest = read_weights(name, WEIGHTS)
    return Extractor(name, digest, _shape(RECIPES[name]), build_classifier(name, state).to(device), device)


def _shape(recipe: Recipe) -> tuple[int, int, int]:
    return recipe.channels, recipe.size, recipe.size


EXTRACTORS: dict[str, ExtractorFacts] = {
    name: ExtractorFacts(recipe.data, _shape(recipe), recipe.dim, partial(_load_classifier, name))
    for name, recipe in RECIPES.items()
}


def load_extractor(name: str, device: torch.device | str = "cpu") -> Extractor:
    """The named extractor on ``device``.

    Raises :class:`FieldError` for an unknown name, :class:`UserError` for weights that are missing or not the published ones.
    """
    if name not in EXTRACTORS:
        raise FieldError("stages.generate.extractor", name, one_of(EXTRACTORS))
    return EXTRACTORS[name].load(torch.device(device))


def check_extractor(name: str, data: DataFacts, *, path: str) -> None:
    """Raise :class:`FieldError` at ``path`` unless the extractor exists and is the data set's: it reads that set's classes."""
    if name not in EXTRACTORS:
        raise FieldError(path, name, one_of(EXTRACTORS))
    if EXTRACTORS[name].data != data.name:
        fitting = one_of(n for n, facts in EXTRACTORS.items() if facts.data == data.name)
        raise FieldError(path, name, f"it reads images of {EXTRACTORS[name].data}, not of {data.name}; {fitting}")


def extractor_for(data: str) -> str:
    """The first extractor that was trained on the data set. Raises :class:`UserError` where there is none."""
    for name, facts in EXTRACTORS.items():
        if facts.data == data:
            return name
    raise UserError(f"no extractor belongs to the data set {data!r}: {one_of(facts.data for facts in EXTRACTORS.values())}")


def describe_extractors() -> Iterator[str]:
    """One line an extractor: its data set, its width, the hash of its weights and their accuracy."""
    for name, facts in EXTRACTORS.items():
        described = read_json(WEIGHTS / f"{name}.json")
        known = "weights missing"
        if described is not None:
            known = f"SHA-256 {described['sha256'][:12]}, {described['test_accuracy']:.1%} of the test split named rightly"
        yield f"{name}: {facts.dim} features, trained on {facts.data}; {known}"
