"""Which extractors there are, and what can be said of each before it is loaded: what it reads, and that its weights are here.

Needs no torch but for ``timm:NAME``, so that a plan is checked at once. A new
extractor is a row of :data:`EXTRACTORS`, and one of the loaders in :mod:`~umd_bench.evaluation.extractors.loading`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.data.datasets import SOURCES, DataFacts
from umd_bench.evaluation.extractors import efficientnet, inception
from umd_bench.evaluation.extractors.classifier_recipes import RECIPES, weights_of
from umd_bench.evaluation.extractors.weight_files import Published

INCEPTION = inception.NAME
TIMM = "timm:"

Shape = tuple[int, int | None, int | None]  # (C, H, W); None: any


@dataclass(frozen=True)
class ExtractorFacts:
    """A row: the data set whose classes it reads (None: it takes any RGB images), its input, and D.

    ``weights`` raises :class:`UserError` unless they are on this machine and the ones meant.
    """

    data: str | None
    shape: Shape
    dim: int
    weights: Callable[[], object]


EXTRACTORS: dict[str, ExtractorFacts] = {
    name: ExtractorFacts(recipe.data, (recipe.channels, recipe.size, recipe.size), recipe.dim, partial(weights_of, name))
    for name, recipe in RECIPES.items()
} | {
    INCEPTION: ExtractorFacts(None, (3, None, None), inception.DIM, inception.find_weights),
    efficientnet.NAME: ExtractorFacts(None, (3, None, None), efficientnet.DIM, efficientnet.find_weights),
}


def require_weights(name: str, *, path: str) -> None:
    """Prove that ``load_extractor`` will find the weights, so that nobody trains for days before it does not.

    Raises as that does, with ``path`` for the field; of a timm model's file only that it is there is proved.
    """
    if name.startswith(TIMM):
        from umd_bench.evaluation.extractors import timm_models

        timm_models.require_weights(timm_models.timm_model(name, path=path))
    elif name in EXTRACTORS:
        EXTRACTORS[name].weights()
    else:
        raise FieldError(path, name, names_of(EXTRACTORS))


def check_extractor(name: str, data: DataFacts, *, path: str) -> None:
    """Raise :class:`FieldError` at ``path`` unless the extractor exists and is the data set's own, or takes any RGB images."""
    fitting = _fitting(data.name)
    if name.startswith(TIMM):
        from umd_bench.evaluation.extractors import timm_models

        timm_models.timm_model(name, path=path)
        belongs, fits = None, _is_rgb(data.name)
    elif name in EXTRACTORS:
        belongs, fits = EXTRACTORS[name].data, name in fitting
    else:
        raise FieldError(path, name, names_of(EXTRACTORS))
    if not fits:
        reads = f"images of {belongs}, not of {data.name}" if belongs else f"RGB images, and those of {data.name} are not"
        raise FieldError(path, name, f"it reads {reads}; {names_of(fitting) if _is_rgb(data.name) else one_of(fitting)}")


def extractor_for(data: str) -> str:
    """The data set's own extractor, else one that takes any RGB images. Raises :class:`UserError` where there is none."""
    fitting = _fitting(data)
    if not fitting:
        raise UserError(f"no extractor takes images of the data set {data!r}: {one_of(SOURCES)}")
    return fitting[0]


def _fitting(data: str) -> list[str]:
    """Extractors of the data set, its own first. What is drawn from latents is decoded before: only the images count."""
    own = [name for name, facts in EXTRACTORS.items() if facts.data == data]
    return own + [name for name, facts in EXTRACTORS.items() if facts.data is None and _is_rgb(data)]


def _is_rgb(data: str) -> bool:
    return data not in SOURCES or SOURCES[data].channels == 3  # users' own pictures are packed in RGB


def names_of(names: Iterable[str]) -> str:
    """The names that are accepted, for a sentence."""
    return f"{one_of(names)}, or timm:NAME"


def published_weights(name: str) -> Published:
    """The weights of that extractor that can be downloaded; :class:`UserError` for one whose weights cannot be fetched."""
    if name != INCEPTION:
        raise UserError(f"weights of {name!r} cannot be fetched: {one_of([INCEPTION])}")
    return inception.published()
