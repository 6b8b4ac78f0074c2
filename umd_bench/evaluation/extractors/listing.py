"""The printed list of extractors: for each, its inputs and outputs, and whether this machine has the right weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.config.trial.trained_extractors import data_of
from umd_bench.evaluation.extractors import timm_models
from umd_bench.evaluation.extractors.classifiers.trained import trained_names
from umd_bench.evaluation.extractors.contract import RGB, ExtractorFacts
from umd_bench.evaluation.extractors.registry import EXTRACTORS, extractor_row
from umd_bench.evaluation.extractors.weight_files import MissingWeightsError


@dataclass(frozen=True)
class ListedExtractor:
    """A line of the list; ``dim`` is D, or "D + S" with spatial features.

    ``weights`` is the SHA-256 of its weights in hex, None if they are missing or ``faulty`` (not the published ones). In both
    cases ``remark`` says how to get them.
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


def list_extractors(root: Path) -> Iterator[ListedExtractor]:
    """Every row of ``EXTRACTORS``, then the classifiers that were trained below the data root ``root``, then timm models.

    DINOv2 is always listed. Any other timm model is listed if its weights lie in the folder of weights.
    """
    for name in EXTRACTORS:
        yield _listed(name)
    for name, size in trained_names(root):
        yield _listed(name, size, root)
    for name in dict.fromkeys([timm_models.DINOV2, *timm_models.names_with_weights()]):
        yield _listed(name)


def _listed(name: str, size: int | None = None, root: Path | None = None) -> ListedExtractor:
    try:
        row = extractor_row(name, path="the file's name", size=size, root=root)
    except UserError as error:  # a file whose name is no timm model, or a description that cannot be read
        takes, data = ("RGB", "any") if root is None else ("", data_of(name))
        return ListedExtractor(name, "", takes, data, "", "", remark=str(error), faulty=True)
    facts = row.facts
    takes = "RGB, grey" if facts.shape == RGB else " x ".join(map(str, facts.shape))
    line = ListedExtractor(name, _widths(facts), takes, _data(facts, row.accuracy), facts.resize, facts.licence)
    try:
        return replace(line, weights=row.hash_weights())
    except MissingWeightsError as error:
        return replace(line, remark=f"no weights: {error.how_to_get}")
    except UserError as error:
        return replace(line, remark=str(error), faulty=True)


def _widths(facts: ExtractorFacts) -> str:
    dim = facts.dim
    if dim is None:
        dim = timm_models.feature_width(timm_models.timm_model(facts.name, path="the file's name"))
    return str(dim) if facts.spatial_dim is None else f"{dim} + {facts.spatial_dim}"


def _data(facts: ExtractorFacts, accuracy: Callable[[], float | None]) -> str:
    """The data set that its classifier was trained on, with the share of test images that it classifies correctly."""
    if facts.data is None:
        return "any"
    try:
        right = accuracy()
    except UserError:  # faulty weights, which a remark describes
        right = None
    return facts.data + (f" ({right:.1%} right)" if right is not None else "")
