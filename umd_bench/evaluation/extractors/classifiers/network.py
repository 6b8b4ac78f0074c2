"""Small convolutional classifiers for data sets whose images Inception was not made for, and their training.

Each is trained once, on the train split alone, and its weights are kept with their hash, command and accuracy. If it were
trained again, new distances could not be compared with earlier ones. The package's weights are committed; those of other
classifiers lie below the data root.

Shapes: B images, C channels, H, W, D features, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.data.batches.batches import to_unit
from umd_bench.data.packs.pack import Pack, Split
from umd_bench.evaluation.extractors.classifier_recipes import (
    RECIPES,
    Recipe,
    facts_of,
    find_weights,
    test_accuracy,
)
from umd_bench.evaluation.extractors.contract import Extractor, ExtractorFacts, Features
from umd_bench.evaluation.extractors.trained_classifiers import TrainedClassifier


class Classifier(nn.Module):
    """For each width a 3x3 convolution and a 2x2 max-pooling, then the features (after ReLU) and a linear layer.

    The BatchNorm before the features' ReLU keeps every feature from being 0 for all images, so that all count in a distance.
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


def train_classifier(
    recipe: Recipe,
    pack: Pack,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Tensor]:
    """Train by ``recipe`` on the pack's train split, on ``device``. Returns the state by parameter name, on the CPU.

    AdamW, label smoothing 0.1, random shifts, and flips if a flipped image keeps its label. On one machine with one number of
    threads, a CPU's result depends only on (recipe, pack, seed). ``progress(done, total)`` counts steps. Raises
    :class:`UserError` for a pack of other images than the recipe's, for fewer than two batches, and for a single class.
    """
    _check(recipe, pack)
    split = pack.split("train")
    # channels_last is twice as fast on a CPU.
    model = _initialised(recipe, seed).to(device).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.05)
    n_batches = len(split) // recipe.batch
    n_steps, step = recipe.epochs * n_batches, 0
    for epoch in range(recipe.epochs):
        rng = np.random.default_rng(derive_seed(seed, "classifier/epoch", epoch))
        for index in np.array_split(rng.permutation(len(split))[: n_batches * recipe.batch], n_batches):
            optimiser.param_groups[0]["lr"] = recipe.lr * min(10 * step / n_steps, 1) * _cosine(step / n_steps)
            images, labels = torch.from_numpy(split.images[index]), torch.from_numpy(split.labels[index])
            _, logits = model(to_unit(_augmented(images, recipe, rng).to(device)))
            optimiser.zero_grad()
            loss = F.cross_entropy(logits, labels.to(device), label_smoothing=0.1)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
            progress(step, n_steps)
    return {key: value.detach().cpu().contiguous() for key, value in model.state_dict().items()}


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
    """The package's classifier ``name`` on ``device``. Raises as :func:`classifier_recipes.find_weights`."""
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


def _check(recipe: Recipe, pack: Pack) -> None:
    """Raise :class:`UserError` unless a classifier of the recipe can be trained on the pack."""
    manifest = pack.manifest
    ours, theirs = (recipe.data, recipe.channels, recipe.size), (manifest.name, manifest.channels, manifest.size)
    if ours != theirs:
        images, expected = (f"{channels}x{size}x{size} images of {name}" for name, channels, size in (theirs, ours))
        raise UserError(f"{pack.path} holds {images}: expected {expected}")
    if recipe.classes < 2:
        raise UserError(f"{manifest.name} has one class: a classifier needs at least 2")
    if manifest.counts["train"] < 2 * recipe.batch:
        n, needed = manifest.counts["train"], 2 * recipe.batch
        raise UserError(f"{manifest.name} has {n} training images: a classifier needs at least {needed}, two batches")


def _initialised(recipe: Recipe, seed: int) -> Classifier:
    """He-normal weights, each parameter from its own generator; biases are 0, normalisations the identity."""
    with torch.device("meta"):
        model = Classifier(recipe)
    state = {}
    for name, value in model.state_dict().items():
        if value.ndim > 1:
            generator = torch.Generator().manual_seed(derive_seed(seed, "classifier/init", name))
            state[name] = torch.randn(value.shape, generator=generator) * math.sqrt(2 / value[0].numel())
        elif name.endswith(("running_var", "weight")):  # of a BatchNorm: every other weight has at least two dimensions
            state[name] = torch.ones(value.shape)
        else:
            state[name] = torch.zeros(value.shape, dtype=value.dtype)
    model.load_state_dict(state, assign=True)
    return model.requires_grad_()


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _augmented(images: Tensor, recipe: Recipe, rng: np.random.Generator) -> Tensor:
    """Shift each image by up to ``recipe.shift`` pixels per axis, repeating its border; flip half of them if ``recipe.flip``.

    Images are uint8 [B, C, H, W].
    """
    B, C, H, W = images.shape
    offsets = torch.from_numpy(rng.integers(-recipe.shift, recipe.shift + 1, (2, B, 1)))
    rows = (torch.arange(H) + offsets[0]).clamp(0, H - 1)
    columns = (torch.arange(W) + offsets[1]).clamp(0, W - 1)
    if recipe.flip:
        columns = torch.where(torch.from_numpy(rng.random((B, 1)) < 0.5), columns.flip(1), columns)
    b, c = torch.arange(B).view(B, 1, 1, 1), torch.arange(C).view(1, C, 1, 1)
    return images[b, c, rows.view(B, 1, H, 1), columns.view(B, 1, 1, W)]
