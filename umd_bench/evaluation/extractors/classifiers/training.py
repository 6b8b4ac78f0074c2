"""The training of a classifier, and ``umd-bench extractor train``: train, measure, write the weights and a description.

Each classifier is trained once, on the train split alone. If it were trained again, new distances could not be compared with
earlier ones. A classifier that comes with the package can be trained again with its own recipe, but only into another folder.
The classifier of any other data set goes below the data root, where every verb finds it by its name.

Shapes: B images, C channels, H rows, W columns.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.trained_extractors import data_of, extractor_of, trained_folder, weights_file
from umd_bench.data.batches.batches import to_unit
from umd_bench.data.datasets import DATASETS
from umd_bench.data.open_data import open_pack
from umd_bench.data.packs.manifest import own_packs
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import device_name, pick_device
from umd_bench.evaluation.extractors.classifiers.network import Classifier, accuracy, build_classifier
from umd_bench.evaluation.extractors.classifiers.recipes import RECIPES, Recipe, recipe_for
from umd_bench.evaluation.extractors.classifiers.trained import Description, find_trained
from umd_bench.store.files import require_writable, write_atomic, write_json

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TrainOptions:
    """The user's choices.

    ``size``, in pixels, chooses the pack of a data set that is packed at several sizes. ``epochs`` None means the recipe's.
    """

    size: int | None = None
    epochs: int | None = None
    flip: bool = False


@dataclass(frozen=True)
class TrainedExtractor:
    """A classifier with its weight file and description; ``existed`` is True if it had been trained before."""

    name: str
    weights: Path
    description: Description
    existed: bool = False


def train_extractor(
    what: str,
    root: Path,
    options: TrainOptions,
    *,
    out: Path | None = None,
    progress: Progress = lambda done, total: None,
) -> TrainedExtractor:
    """Train the classifier of ``what``: a data set packed below ``root``, or the name of its classifier.

    The files go into ``out``, or else below ``root``. Without ``out``, a classifier that is below ``root`` already is returned
    as it is; with ``out``, files of the same name there are replaced. ``progress(done, total)`` counts steps. Raises
    :class:`FieldError` for an unknown name or an option that is not accepted. Raises :class:`UserError` for a pack that is
    missing or unfit for training, for a classifier that was trained with other options, and for a folder that cannot be
    written.
    """
    packaged = _packaged(what)
    if packaged is not None:
        return _trained_again(packaged, root, options, out, progress)
    data = _data_set(what, root)
    name = extractor_of(data)
    if name in RECIPES:
        raise FieldError("name", what, f"{name} is the classifier of {RECIPES[name].data}: pack {data} under another name")
    pack = open_pack(data, root, size=options.size)
    recipe = _recipe(pack, options)
    folder = out if out is not None else trained_folder(root)
    weights = weights_file(folder, name, recipe.size)
    require_writable(folder, "the folder of extractors")
    with filelock.FileLock(weights.with_suffix(".lock"), is_singleton=False):
        existing = find_trained(name, root, size=recipe.size, path="name") if out is None else None
        if existing is not None:
            existing.find_weights()  # raises if they are damaged, or the pack has other images now
            if existing.description.recipe != recipe:
                differing = _difference(existing.description.recipe, recipe)
                raise UserError(f"{weights} was trained with {differing}: leave the option out, or {existing.again}")
            return TrainedExtractor(name, weights, existing.description, existed=True)
        given = [f" --epochs {options.epochs}"] * (options.epochs is not None) + [" --flip"] * options.flip
        command = f"umd-bench extractor train {data} --size {recipe.size}{''.join(given)}"
        description = _train_and_write(recipe, pack, weights, command, pick_device("auto"), progress)
    return TrainedExtractor(name, weights, description)


def train_classifier(
    recipe: Recipe,
    pack: Pack,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
    progress: Progress = lambda done, total: None,
) -> dict[str, Tensor]:
    """Train by ``recipe`` on the pack's train split, on ``device``. Returns the state by parameter name, on the CPU.

    AdamW, label smoothing 0.1, random shifts, and flips if a flipped image keeps its label. On one machine with one number of
    threads, a CPU's result depends only on (recipe, pack, seed). ``progress(done, total)`` counts steps. Raises
    :class:`UserError` for a pack whose images are not the recipe's, or that has fewer than two batches or a single class.
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


def _packaged(what: str) -> str | None:
    """The classifier of the package whose name, or whose data set's name, is ``what``; None if there is none."""
    return next((name for name, recipe in RECIPES.items() if what in (name, recipe.data)), None)


def _trained_again(name: str, root: Path, options: TrainOptions, out: Path | None, progress: Progress) -> TrainedExtractor:
    """Train a classifier of the package into ``out``, with its own recipe, on a CPU, as was done for the package."""
    if out is None:
        raise UserError(
            f"{name} comes with the package and needs no training: --out FOLDER trains it again into another folder"
        )
    recipe = RECIPES[name]
    for field in ("epochs", "flip"):
        if getattr(options, field):
            raise FieldError(field, getattr(options, field), f"{name} is trained with a fixed recipe: leave the option out")
    pack = open_pack(recipe.data, root, size=options.size)
    require_writable(out, "the folder of --out")
    weights, command = out / f"{name}.safetensors", f"umd-bench extractor train {name} --out FOLDER"
    return TrainedExtractor(name, weights, _train_and_write(recipe, pack, weights, command, torch.device("cpu"), progress))


def _data_set(what: str, root: Path) -> str:
    """The data set whose name, or whose classifier's name, is ``what``; ``what`` itself if there is none."""
    known = {*DATASETS, *own_packs(root, DATASETS)}
    return data_of(what) if what not in known and data_of(what) in known else what


def _recipe(pack: Pack, options: TrainOptions) -> Recipe:
    manifest = pack.manifest
    return recipe_for(
        manifest.name,
        size=manifest.size,
        channels=manifest.channels,
        classes=len(manifest.class_names),
        n_train=manifest.counts["train"],
        epochs=options.epochs,
        flip=options.flip,
    )


def _train_and_write(
    recipe: Recipe, pack: Pack, weights: Path, command: str, device: torch.device, progress: Progress
) -> Description:
    """Train, measure and write. The description is written last, because a verb finds the weights only through it."""
    state = train_classifier(recipe, pack, device=device, progress=progress)
    model = build_classifier(recipe, state).to(device)
    content = safetensors.torch.save(state)
    splits = {name: accuracy(model, pack.split(name)) for name in ("validation", "test") if name in pack.manifest.counts}
    description = Description(
        sha256=hashlib.sha256(content).hexdigest(),
        command=command,
        trained_on="the train split",
        test_accuracy=splits["test"],
        validation_accuracy=splits.get("validation"),
        train_images=pack.manifest.counts["train"],
        data_digest=pack.manifest.digest,
        recipe=recipe,
        device=device_name(device.type),
        torch=torch.__version__,
    )
    write_atomic(weights, content)
    write_json(weights.with_suffix(".json"), description.model_dump(mode="json"))
    return description


def _difference(theirs: Recipe, ours: Recipe) -> str:
    """``epochs 60, not 5``: the fields in which two recipes differ."""
    before, now = asdict(theirs), asdict(ours)
    return ", ".join(f"{field} {before[field]}, not {now[field]}" for field in now if before[field] != now[field])


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
