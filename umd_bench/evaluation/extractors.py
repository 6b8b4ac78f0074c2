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
from umd_bench.data.sources import SOURCES, DataFacts
from umd_bench.evaluation import inception
from umd_bench.evaluation.classifier import RECIPES, Recipe, build_classifier, read_weights
from umd_bench.store.files import read_json

WEIGHTS = Path(__file__).parent / "weights"
INCEPTION = "inception-v3-compat"

Shape = tuple[int, int | None, int | None]  # (C, H, W); None: any

# uint8 [B, C, H, W] -> features [B, D], logits [B, K]
Network = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Extractor:
    """A loaded extractor. ``hash`` is the SHA-256 of its weights, in hex; ``data`` the set whose classes it reads, if any."""

    name: str
    hash: str
    shape: Shape
    network: Network
    device: torch.device
    data: str | None

    def metric(self, score: str) -> str:
        """What a score of its features is called: ``fd`` is ``fid`` with the features that FID is defined by, and only then."""
        if self.name != INCEPTION:
            return f"{score}_{self.name}"
        return "fid" if score == "fd" else score

    @torch.inference_mode()
    def features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """uint8 [B, C, H, W], 0..255 -> features float32 [B, D] and logits float32 [B, K], on the CPU.

        Raises :class:`UserError` for another dtype or shape.
        """
        sides = zip(images.shape[1:], self.shape, strict=False)
        if images.dtype != torch.uint8 or images.ndim != 4 or any(wanted not in (None, side) for side, wanted in sides):
            dtype = str(images.dtype).removeprefix("torch.")
            expected = ", ".join(
                name if wanted is None else str(wanted) for name, wanted in zip("CHW", self.shape, strict=True)
            )
            raise UserError(
                f"{self.name} does not take {dtype} images of shape {list(images.shape)}: "
                f"expected uint8 of shape [B, {expected}]"
            )
        features, logits = self.network(images.to(self.device))
        return features.float().cpu(), logits.float().cpu()


@dataclass(frozen=True)
class ExtractorFacts:
    """A row: the data set whose classes it reads (None: it takes any RGB images), its input, D, and how it is loaded."""

    data: str | None
    shape: Shape
    dim: int
    load: Callable[[torch.device], Extractor]


def _load_classifier(name: str, device: torch.device) -> Extractor:
    state, digest = read_weights(name, WEIGHTS)
    model = build_classifier(name, state).to(device)
    return Extractor(name, digest, _shape(RECIPES[name]), lambda x: model(to_unit(x)), device, RECIPES[name].data)


def _load_inception(device: torch.device) -> Extractor:
    return Extractor(INCEPTION, inception.SHA256, (3, None, None), inception.load_inception(device), device, None)


def _shape(recipe: Recipe) -> Shape:
    return recipe.channels, recipe.size, recipe.size


EXTRACTORS: dict[str, ExtractorFacts] = {
    name: ExtractorFacts(recipe.data, _shape(recipe), recipe.dim, partial(_load_classifier, name))
    for name, recipe in RECIPES.items()
} | {INCEPTION: ExtractorFacts(None, (3, None, None), inception.DIM, _load_inception)}


def load_extractor(name: str, device: torch.device | str = "cpu") -> Extractor:
    """The named extractor on ``device``.

    Raises :class:`FieldError` for an unknown name, :class:`UserError` for weights that are missing or not the published ones.
    """
    if name not in EXTRACTORS:
        raise FieldError("stages.generate.extractor", name, one_of(EXTRACTORS))
    return EXTRACTORS[name].load(torch.device(device))


def check_extractor(name: str, data: DataFacts, *, path: str) -> None:
    """Raise :class:`FieldError` at ``path`` unless the extractor exists and is the data set's own, or takes any RGB images."""
    if name not in EXTRACTORS:
        raise FieldError(path, name, one_of(EXTRACTORS))
    fitting = _fitting(data.name)
    if name not in fitting:
        belongs = EXTRACTORS[name].data
        reads = f"images of {belongs}, not of {data.name}" if belongs else f"RGB images, and those of {data.name} are not"
        raise FieldError(path, name, f"it reads {reads}; {one_of(fitting)}")


def extractor_for(data: str) -> str:
    """The data set's own extractor, else one that takes any RGB images. Raises :class:`UserError` where there is none."""
    fitting = _fitting(data)
    if not fitting:
        raise UserError(f"no extractor takes images of the data set {data!r}: {one_of(SOURCES)}")
    return fitting[0]


def _fitting(data: str) -> list[str]:
    """Extractors of the data set, its own first. What is drawn from latents is decoded before: only the images count."""
    own = [name for name, facts in EXTRACTORS.items() if facts.data == data]
    rgb = data in SOURCES and SOURCES[data].channels == 3
    return own + [name for name, facts in EXTRACTORS.items() if facts.data is None and rgb]


def describe_extractors() -> Iterator[str]:
    """One line an extractor: its data set, its width, the hash of its weights and their accuracy."""
    for name, facts in EXTRACTORS.items():
        if facts.data is None:
            path = inception.weights_path()
            there = f"weights in {path}" if path.exists() else f"no weights in {path}; {inception.ADDRESS} has them"
            yield f"{name}: {facts.dim} features, takes any RGB images; SHA-256 {inception.SHA256[:12]}, {there}"
            continue
        described = read_json(WEIGHTS / f"{name}.json")
        known = "weights missing"
        if described is not None:
            known = f"SHA-256 {described['sha256'][:12]}, {described['test_accuracy']:.1%} of the test split named rightly"
        yield f"{name}: {facts.dim} features, trained on {facts.data}; {known}"
