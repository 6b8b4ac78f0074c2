"""The table of extractors: one row each, with its facts and how its weights are found, hashed and loaded.

Nothing here imports torch before a network is loaded, except for ``timm:NAME``, whose facts come from timm.
A new extractor is a row of :data:`EXTRACTORS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.data.datasets import DATASETS, DataFacts
from umd_bench.evaluation.extractors import classifier_recipes, efficientnet, inception, timm_models
from umd_bench.evaluation.extractors.contract import INCEPTION, Extractor, ExtractorFacts
from umd_bench.evaluation.extractors.timm_models import TIMM, TimmModel
from umd_bench.evaluation.extractors.weight_files import Published

if TYPE_CHECKING:
    import torch

FIELD = "stages.generate.extractor"


@dataclass(frozen=True)
class ExtractorRow:
    """A row of the table.

    ``find_weights`` raises :class:`UserError` if the weights are not on this machine, or if a SHA-256 is published and theirs
    differs. ``hash_weights`` gives their SHA-256 in hex and raises the same errors. ``load`` puts the network on a device.
    """

    facts: ExtractorFacts
    find_weights: Callable[[], object]
    hash_weights: Callable[[], str]
    load: Callable[[torch.device], Extractor]


def _classifier_row(name: str) -> ExtractorRow:
    def load(device: torch.device) -> Extractor:
        from umd_bench.evaluation.extractors.classifier import load_classifier

        return load_classifier(name, device)

    return ExtractorRow(
        classifier_recipes.facts_of(name),
        partial(classifier_recipes.find_weights, name),
        partial(classifier_recipes.hash_weights, name),
        load,
    )


def _timm_row(model: TimmModel) -> ExtractorRow:
    def load(device: torch.device) -> Extractor:
        from umd_bench.evaluation.extractors.timm_network import load_timm

        return load_timm(model, device)

    return ExtractorRow(
        model.facts,
        partial(timm_models.find_weights, model),
        partial(timm_models.hash_weights, model),
        load,
    )


EXTRACTORS: dict[str, ExtractorRow] = {
    row.facts.name: row
    for row in (
        *map(_classifier_row, classifier_recipes.RECIPES),
        ExtractorRow(inception.FACTS, inception.find_weights, inception.hash_weights, inception.load_inception),
        ExtractorRow(efficientnet.FACTS, efficientnet.find_weights, efficientnet.hash_weights, efficientnet.load_efficientnet),
    )
}


def extractor_row(name: str, *, path: str) -> ExtractorRow:
    """The row of ``name``, which may be ``timm:NAME``. An unknown name raises :class:`FieldError` for the field ``path``."""
    if name.startswith(TIMM):
        return _timm_row(timm_models.timm_model(name, path=path))
    if name not in EXTRACTORS:
        raise FieldError(path, name, _accepted(EXTRACTORS))
    return EXTRACTORS[name]


def load_extractor(name: str, device: torch.device | str = "cpu") -> Extractor:
    """The named extractor on ``device``.

    Raises :class:`FieldError` for an unknown name, :class:`UserError` if its weights are missing or not the published ones.
    """
    import torch

    return extractor_row(name, path=FIELD).load(torch.device(device))


def require_weights(name: str, *, path: str) -> None:
    """Raise the errors of :func:`load_extractor` for an unknown name and for missing or wrong weights, with ``path`` as field.

    It is called before a sweep trains anything. For a timm model it checks only that the weight file exists.
    """
    extractor_row(name, path=path).find_weights()


def check_extractor(name: str, data: DataFacts, *, path: str) -> None:
    """Raise :class:`FieldError` for the field ``path`` unless the extractor exists and takes the images of ``data``."""
    own = extractor_row(name, path=path).facts.data
    if own == data.name or (own is None and _is_rgb(data.name)):
        return
    reads = f"images of {own}, not of {data.name}" if own else f"RGB images, but {data.name} has none"
    fitting = _fitting(data.name)
    raise FieldError(path, name, f"it reads {reads}; {_accepted(fitting) if _is_rgb(data.name) else one_of(fitting)}")


def extractor_for(data: str) -> str:
    """The data set's own extractor, else one that takes any RGB images. Raises :class:`UserError` if none fits."""
    fitting = _fitting(data)
    if not fitting:
        raise UserError(f"no extractor takes images of the data set {data!r}: {one_of(DATASETS)}")
    return fitting[0]


def published_weights(name: str) -> Published:
    """The downloadable weights of the extractor ``name``. Raises :class:`UserError` for one whose weights are not published."""
    if name != INCEPTION:
        raise UserError(f"weights of {name!r} cannot be fetched: {one_of([INCEPTION])}")
    return inception.published()


def _fitting(data: str) -> list[str]:
    """Extractors that take images of ``data``, its own first. Latents are decoded first, so only the images matter."""
    own = [name for name, row in EXTRACTORS.items() if row.facts.data == data]
    return own + [name for name, row in EXTRACTORS.items() if row.facts.data is None and _is_rgb(data)]


def _is_rgb(data: str) -> bool:
    return data not in DATASETS or DATASETS[data].channels == 3  # users' own pictures are packed in RGB


def _accepted(names: Iterable[str]) -> str:
    return f"{one_of(names)}, or timm:NAME"
