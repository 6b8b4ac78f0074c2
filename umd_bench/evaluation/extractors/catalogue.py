"""The extractors as a table for people: what each reads and gives, and whether its weights are there and the right ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors import efficientnet, inception, timm_models
from umd_bench.evaluation.extractors.classifier_recipes import RECIPES, WEIGHTS, weights_of
from umd_bench.evaluation.extractors.weight_files import file_sha256
from umd_bench.store.files import read_json


@dataclass(frozen=True)
class Entry:
    """A row: the name, D (and S where there are spatial features), the images it takes and of which data set, the resizing.

    ``weights`` is the SHA-256 of the weights in hex, None where there are none; then, and where they are not the ones meant,
    ``remark`` says why and what to do; ``faulty`` tells the second from the first.
    """

    name: str
    dim: str
    takes: str
    data: str
    resize: str
    licence: str
    weights: str | None = None
    remark: str | None = None
    faulty: bool = False


def catalogue() -> Iterator[Entry]:
    """Every extractor of the table, then DINOv2 and the timm models whose weights lie in the folder of weights."""
    for name, recipe in RECIPES.items():
        described = read_json(WEIGHTS / f"{name}.json") or {}
        accuracy = f" ({described['test_accuracy']:.1%} right)" if "test_accuracy" in described else ""
        takes = f"{recipe.channels} x {recipe.size} x {recipe.size}"
        entry = Entry(name, str(recipe.dim), takes, recipe.data + accuracy, "none", "Apache-2.0")
        try:
            yield replace(entry, weights=weights_of(name)[1])
        except UserError as error:
            yield _faulty(entry, error)
    yield _inception()
    entry = Entry(efficientnet.NAME, str(efficientnet.DIM), "RGB", "any", efficientnet.RESIZE, "Apache-2.0")
    try:
        efficientnet.find_weights()
        yield replace(entry, weights=efficientnet.SHA256)
    except UserError as error:
        yield _faulty(entry, error)
    for name in dict.fromkeys([timm_models.DINOV2, *timm_models.own_names()]):
        yield _timm(name)


def _inception() -> Entry:
    dim = f"{inception.DIM} + {inception.SPATIAL_DIM}"
    entry = Entry(inception.NAME, dim, "RGB", "any", inception.RESIZE, "Apache-2.0")
    if not any(path.exists() for path in inception.weights_places()):
        return replace(entry, remark=f"no weights: {inception.ways()}")
    try:
        inception.find_weights()
    except UserError as error:
        return _faulty(entry, error)
    return replace(entry, weights=inception.SHA256)


def _timm(name: str) -> Entry:
    try:
        model = timm_models.timm_model(name, path="the file's name")
    except UserError as error:
        return _faulty(Entry(name, "", "RGB", "any", "", ""), error)
    width = str(timm_models.feature_width(model))
    entry = Entry(name, width, "RGB", "any", model.resize, model.licence)
    path = timm_models.find_weights(model)
    if path is None:
        return replace(entry, remark=f"no weights: {timm_models.ways(model)}")
    return replace(entry, weights=file_sha256(path))


def _faulty(entry: Entry, error: UserError) -> Entry:
    return replace(entry, remark=str(error), faulty=True)
