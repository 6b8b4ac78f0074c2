"""``umd-bench extractor train``: trains the classifier of a packed data set, measures it, and writes it with its description.

A classifier of the package is trained again only into another folder, as it was trained for the package. The classifier of any
other data set goes below the data root, where every verb finds it by its name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import safetensors.torch
import torch

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.trained_extractors import data_of, extractor_of, trained_folder, weights_file
from umd_bench.data.datasets import DATASETS
from umd_bench.data.open_data import open_pack
from umd_bench.data.packs.manifest import own_packs
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import device_name, pick_device
from umd_bench.evaluation.extractors.classifier import accuracy, build_classifier, train_classifier
from umd_bench.evaluation.extractors.classifier_recipes import RECIPES, Recipe, recipe_for
from umd_bench.evaluation.extractors.trained_classifiers import Description, find_trained
from umd_bench.store.files import require_writable, write_atomic, write_json

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TrainOptions:
    """The user's choices: ``size`` in pixels, for a data set that is packed at several; ``epochs`` None: the recipe's."""

    size: int | None = None
    epochs: int | None = None
    flip: bool = False


@dataclass(frozen=True)
class TrainedExtractor:
    """A classifier with its weight file and description; ``existed`` if it was trained before."""

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

    The files go into ``out``, or else below ``root``; a classifier that is there already is returned as it is. ``progress(done,
    total)`` counts steps. Raises :class:`FieldError` for an unknown name or an option that is not accepted, :class:`UserError`
    for a pack that is missing or unfit, a classifier that was trained with other options, and a folder that cannot be written.
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


def _packaged(what: str) -> str | None:
    """The classifier of the package that ``what`` names, itself or by its data set."""
    return next((name for name, recipe in RECIPES.items() if what in (name, recipe.data)), None)


def _trained_again(name: str, root: Path, options: TrainOptions, out: Path | None, progress: Progress) -> TrainedExtractor:
    """A classifier of the package, trained on a CPU as it was for the package."""
    if out is None:
        raise UserError(f"{name} comes with the package, and is used from there: --out FOLDER trains it again into a folder")
    recipe = RECIPES[name]
    for field in ("epochs", "flip"):
        if getattr(options, field):
            raise FieldError(field, getattr(options, field), f"{name} has a recipe of its own: leave it out")
    pack = open_pack(recipe.data, root, size=options.size)
    require_writable(out, "the folder of --out")
    weights, command = out / f"{name}.safetensors", f"umd-bench extractor train {name} --out FOLDER"
    return TrainedExtractor(name, weights, _train_and_write(recipe, pack, weights, command, torch.device("cpu"), progress))


def _data_set(what: str, root: Path) -> str:
    """The data set that ``what`` names, itself or by its classifier; ``what`` if it names neither."""
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
    """Train, measure, and write the weights, then the description, without which no verb finds them."""
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
