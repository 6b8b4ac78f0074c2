"""The network of the small classifiers, the measurement of its accuracy, and its loading as an extractor.

Shapes: B images, C channels, H, W, D features, K classes.
"""

from __future__ import annotations

from dataclasses import asdict

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umd_bench.data.batches.batches import to_unit
from umd_bench.data.packs.pack import Split
from umd_bench.evaluation.extractors.classifiers.recipes import (
    RECIPES,
    Recipe,
    facts_of,
    find_weights,
    test_accuracy,
)
from umd_bench.evaluation.extractors.classifiers.trained import TrainedClassifier
from umd_bench.evaluation.extractors.contract import Extractor, ExtractorFacts, Features


class Classifier(nn.Module):
    """For each width a 3x3 convolution, BatchNorm, ReLU and a 2x2 max-pooling; then the features, and a linear head.

    The features are a linear layer's output after BatchNorm and ReLU. Without this BatchNorm, a feature could be 0 for every
    image, and would then not count in a distance.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = recipe.channels
        for width in recipe.widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(2)]
            channels = width
        side = recipe.size // 2 ** len(recipe.widths)
        self.trunk = nn.Sequential(*layers, nn.Flatten())
        self.penultimate = nn.Linear(channels * side**2, recipe.dim, bias=False)
        self.norm = nn.BatchNorm1d(recipe.dim)
        self.head = nn.Linear(recipe.dim, recipe.classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, H, W] float32 in [-1, 1] -> features [B, D] >= 0, logits [B, K]."""
        features = F.relu(self.norm(self.penultimate(self.trunk(x.contiguous(memory_format=torch.channels_last)))))
        return features, self.head(features)


def build_classifier(recipe: Recipe, state: dict[str, Tensor]) -> Classifier:
    """The classifier with these weights, in eval mode and without gradients."""
    with torch.device("meta"):
        model = Classifier(recipe)
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(requires_grad=False)


@torch.inference_mode()
def accuracy(model: Classifier, split: Split) -> float:
    """Share of the split's images whose class the classifier predicts, in [0, 1]."""
    device, correct = model.head.weight.device, 0
    for start in range(0, len(split), 500):
        _, logits = model(to_unit(torch.from_numpy(split.images[start : start + 500]).to(device)))
        correct += int((logits.argmax(1).cpu().numpy() == split.labels[start : start + 500]).sum())
    return correct / len(split)


def load_classifier(name: str, device: torch.device) -> Extractor:
    """The package's classifier ``name`` on ``device``. Raises as :func:`recipes.find_weights`."""
    weights, digest = find_weights(name)
    recipe = RECIPES[name]
    return _loaded(facts_of(name, recipe), recipe, weights, digest, test_accuracy(name), device)


def load_trained(trained: TrainedClassifier, device: torch.device) -> Extractor:
    """A classifier that was trained below a data root, on ``device``. Raises as :meth:`TrainedClassifier.find_weights`."""
    described, weights = trained.description, trained.find_weights()
    return _loaded(trained.facts, described.recipe, weights, described.sha256, described.test_accuracy, device)


def _loaded(
    facts: ExtractorFacts, recipe: Recipe, weights: bytes, digest: str, share_right: float, device: torch.device
) -> Extractor:
    model = build_classifier(recipe, safetensors.torch.load(weights)).to(device)

    def network(images: Tensor, spatial: bool) -> Features:
        pooled, logits = model(to_unit(images))
        return Features(pooled, logits, None)

    return Extractor(**asdict(facts), hash=digest, device=device, network=network, accuracy=share_right)
