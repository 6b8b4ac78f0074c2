"""The list of extractors, for people: inputs and outputs of each, and whether the right weights are on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors import timm_models
from umd_bench.evaluation.extractors.classifier_recipes import RECIPES, WEIGHTS
from umd_bench.evaluation.extractors.contract import RGB, ExtractorFacts
from umd_bench.evaluation.extractors.registry import EXTRACTORS, extractor_row
from umd_bench.evaluation.extractors.weight_files import MissingWeightsError
from umd_bench.store.files import read_json


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


def list_extractors() -> Iterator[ListedExtractor]:
    """Every extractor of the table, then DINOv2 and the timm models whose weights lie in the folder of weights."""
    for name in dict.fromkeys([*EXTRACTORS, timm_models.DINOV2, *timm_models.names_with_weights()]):
        yield _listed(name)


def _listed(name: str) -> ListedExtractor:
    try:
        row = extractor_row(name, path="the file's name")
    except UserError as error:  # a file whose name is no timm model
        return ListedExtractor(name, "", "RGB", "any", "", "", remark=str(error), faulty=True)
    facts = row.facts
    takes = "RGB" if facts.shape == RGB else " x ".join(map(str, facts.shape))
    line = ListedExtractor(name, _widths(facts), takes, _data(facts), facts.resize, facts.licence)
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


def _data(facts: ExtractorFacts) -> str:
    """The data set whose classes it reads; for the package's own classifiers also their accuracy."""
    if facts.data is None:
        return "any"
    described = (read_json(WEIGHTS / f"{facts.name}.json") or {}) if facts.name in RECIPES else {}
    return facts.data + (f" ({described['test_accuracy']:.1%} right)" if "test_accuracy" in described else "")
