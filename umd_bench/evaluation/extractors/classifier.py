"""Small convolutional classifiers for data sets whose images Inception was not made for, and their training.

Each was trained once, on the train split alone, and its weights are committed with their hash, command and accuracy. If it were
trained again, new distances could not be compared with earlier ones.

Shapes: B images, C channels, H, W, D features, K classes.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umd_bench.config.errors import UserError, one_of
from umd_bench.config.seeds import derive_seed
from umd_bench.data.batches.batches import to_unit
from umd_bench.data.open_data import open_pack
from umd_bench.data.packs.pack import Pack, Split
from umd_bench.evaluation.extractors.classifier_recipes import RECIPES, Recipe, facts_of, find_weights
from umd_bench.evaluation.extractors.contract import Extractor, Features
from umd_bench.store.files import write_atomic, write_json


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


def train_classifier(name: str, pack: Pack, seed: int = 0) -> dict[str, Tensor]:
    """Train ``RECIPES[name]`` on the pack's train split, on the CPU. Returns the state by parameter name.

    AdamW, label smoothing 0.1, random shifts, and flips if a flipped image keeps its label. On one machine with one number of
    threads, the result depends only on (name, pack, seed). Raises :class:`UserError` for an unknown name and for a pack of
    another data set.
    """
    recipe = _recipe(name)
    if pack.manifest.name != recipe.data:
        raise UserError(f"{name} is trained on {recipe.data}, not on {pack.manifest.name}: give that data set's pack")
    split = pack.split("train")
    images, labels = torch.from_numpy(np.array(split.images)), torch.from_numpy(split.labels)
    # channels_last is twice as fast on a CPU.
    model = _initialised(recipe, seed).train().to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(model.parameters(), lr=recipe.lr, weight_decay=0.05)
    n_batches = len(labels) // recipe.batch
    n_steps, step = recipe.epochs * n_batches, 0
    for epoch in range(recipe.epochs):
        rng = np.random.default_rng(derive_seed(seed, "classifier/epoch", epoch))
        for index in np.array_split(rng.permutation(len(labels))[: n_batches * recipe.batch], n_batches):
            optimiser.param_groups[0]["lr"] = recipe.lr * min(10 * step / n_steps, 1) * _cosine(step / n_steps)
            _, logits = model(to_unit(_augmented(images[index], recipe, rng)))
            optimiser.zero_grad()
            F.cross_entropy(logits, labels[index], label_smoothing=0.1).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            step += 1
    return {key: value.detach().contiguous() for key, value in model.state_dict().items()}


def build_classifier(name: str, state: dict[str, Tensor]) -> Classifier:
    """The classifier with these weights, in eval mode and without gradients. Raises :class:`UserError` for an unknown name."""
    with torch.device("meta"):
        model = Classifier(_recipe(name))
    model.load_state_dict(state, assign=True)
    return model.eval().requires_grad_(requires_grad=False)


@torch.inference_mode()
def accuracy(model: Classifier, split: Split) -> float:
    """Share of the split's images whose class the classifier predicts, in [0, 1]."""
    correct = 0
    for start in range(0, len(split), 500):
        _, logits = model(to_unit(torch.from_numpy(np.array(split.images[start : start + 500]))))
        correct += int((logits.argmax(1).numpy() == split.labels[start : start + 500]).sum())
    return correct / len(split)


def train_extractor(name: str, out: Path, data_root: Path) -> None:
    """Train ``name``, write ``out/<name>.safetensors`` and then its description, ``out/<name>.json``.

    Raises :class:`UserError` as :func:`train_classifier` does, and if the data set is not available.
    """
    pack = open_pack(_recipe(name).data, data_root)
    state = train_classifier(name, pack)
    weights = safetensors.torch.save(state)
    write_atomic(out / f"{name}.safetensors", weights)
    write_json(
        out / f"{name}.json",
        {
            "sha256": hashlib.sha256(weights).hexdigest(),
            "command": f"umd-bench extractor train {name} --out FOLDER",
            "test_accuracy": accuracy(build_classifier(name, state), pack.split("test")),
            "trained_on": "the train split",
            "data_digest": pack.manifest.digest,
            "torch": torch.__version__,
        },
    )


def read_weights(name: str, folder: Path | None = None) -> tuple[dict[str, Tensor], str]:
    """The tensors in ``<name>.safetensors`` in ``folder`` (None: the package's) and the file's SHA-256.

    Raises as :func:`classifier_recipes.find_weights`.
    """
    weights, digest = find_weights(name, folder)
    return safetensors.torch.load(weights), digest


def load_classifier(name: str, device: torch.device) -> Extractor:
    """The extractor with the package's weights on ``device``. Raises as :func:`classifier_recipes.find_weights`."""
    state, digest = read_weights(name)
    model = build_classifier(name, state).to(device)

    def network(images: Tensor, spatial: bool) -> Features:
        pooled, logits = model(to_unit(images))
        return Features(pooled, logits, None)

    return Extractor(**asdict(facts_of(name)), hash=digest, device=device, network=network)


def _recipe(name: str) -> Recipe:
    if name not in RECIPES:
        raise UserError(f"extractor {name!r} cannot be trained: {one_of(RECIPES)}")
    return RECIPES[name]


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
