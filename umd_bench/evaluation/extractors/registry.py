"""The table of extractors: one row each, with its facts and how its weights are found, hashed and loaded.

Nothing here imports torch before a network is loaded, except for ``timm:NAME``, whose facts come from timm.
A new extractor is a row of :data:`EXTRACTORS`. A classifier that a user trained (classifiers/trained.py) has a row too, but
not in that table, because its name alone does not say which one is meant. So functions here also take a size and a data root.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.trial.trained_extractors import extractor_of
from umd_bench.data.datasets import DataFacts
from umd_bench.data.packs.manifest import data_root
from umd_bench.evaluation.extractors import efficientnet, inception, timm_models
from umd_bench.evaluation.extractors.classifiers import recipes
from umd_bench.evaluation.extractors.classifiers.trained import TrainedClassifier, find_trained, trained_names
from umd_bench.evaluation.extractors.contract import INCEPTION, Extractor, ExtractorFacts
from umd_bench.evaluation.extractors.timm_models import TIMM, TimmModel
from umd_bench.evaluation.extractors.weight_files import Published

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from umd_bench.data.packs.pack import Pack

FIELD = "stages.generate.extractor"


@dataclass(frozen=True)
class ExtractorRow:
    """A row of the table.

    ``find_weights`` raises :class:`UserError` if the weights are not on this machine, or if a SHA-256 is published and theirs
    differs. ``hash_weights`` gives their SHA-256 in hex and raises the same errors. ``load`` puts the network on a device.
    ``accuracy`` is the share of its data set's test images that it classifies correctly, None if it is no such classifier.
    """

    facts: ExtractorFacts
    find_weights: Callable[[], object]
    hash_weights: Callable[[], str]
    load: Callable[[torch.device], Extractor]
    accuracy: Callable[[], float | None] = lambda: None


def _classifier_row(name: str) -> ExtractorRow:
    def load(device: torch.device) -> Extractor:
        from umd_bench.evaluation.extractors.classifiers.network import load_classifier

        return load_classifier(name, device)

    return ExtractorRow(
        recipes.facts_of(name, recipes.RECIPES[name]),
        partial(recipes.find_weights, name),
        partial(recipes.hash_weights, name),
        load,
        partial(recipes.test_accuracy, name),
    )


def _trained_row(trained: TrainedClassifier) -> ExtractorRow:
    def load(device: torch.device) -> Extractor:
        from umd_bench.evaluation.extractors.classifiers.network import load_trained

        return load_trained(trained, device)

    accuracy = trained.description.test_accuracy
    return ExtractorRow(trained.facts, trained.find_weights, trained.hash_weights, load, lambda: accuracy)


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
        *map(_classifier_row, recipes.RECIPES),
        ExtractorRow(inception.FACTS, inception.find_weights, inception.hash_weights, inception.load_inception),
        ExtractorRow(efficientnet.FACTS, efficientnet.find_weights, efficientnet.hash_weights, efficientnet.load_efficientnet),
    )
}


def is_trained_name(name: str) -> bool:
    """Whether ``name`` can only be a classifier that a user trained: it is not in the table, and it is no ``timm:NAME``."""
    return name not in EXTRACTORS and not name.startswith(TIMM)


def extractor_row(name: str, *, path: str, size: int | None = None, root: Path | None = None) -> ExtractorRow:
    """The row of ``name``, which is in the table, is a ``timm:NAME``, or is a classifier that a user trained.

    A trained classifier is looked for below the data root ``root`` (None: the default one), for images of ``size`` pixels
    (None: it must be trained at one size only). An unknown name raises :class:`FieldError` for the field ``path``.
    """
    if name.startswith(TIMM):
        return _timm_row(timm_models.timm_model(name, path=path))
    if name in EXTRACTORS:
        return EXTRACTORS[name]
    root = root if root is not None else data_root()
    trained = find_trained(name, root, size=size, path=path)
    if trained is None:
        others = {other for other, its_size in trained_names(root) if size in (None, its_size)}
        raise FieldError(path, name, _accepted([*EXTRACTORS, *others]))
    return _trained_row(trained)


def load_extractor(name: str, device: torch.device | str = "cpu", *, images: Pack | None = None) -> Extractor:
    """The named extractor on ``device``, to read the images of the pack ``images``.

    A classifier that was trained is looked for beside that pack; without ``images`` in the default data root. Raises
    :class:`FieldError` for an unknown name, :class:`UserError` if its weights are missing or not the published ones.
    """
    import torch

    size, root = (None, None) if images is None else (images.manifest.size, images.path.parent)
    return extractor_row(name, path=FIELD, size=size, root=root).load(torch.device(device))


def require_weights(name: str, *, path: str, size: int | None = None, root: Path | None = None) -> None:
    """Raise the errors of :func:`load_extractor` for an unknown name and for missing or wrong weights, with ``path`` as field.

    It is called before a sweep trains anything. For a timm model it checks only that the weight file exists. ``size`` and
    ``root`` are as in :func:`extractor_row`.
    """
    extractor_row(name, path=path, size=size, root=root).find_weights()


def check_extractor(name: str, data: DataFacts, *, path: str, root: Path | None = None) -> None:
    """Raise :class:`FieldError` for the field ``path`` unless the extractor exists and takes the images of ``data``.

    ``root`` is the data root of trained classifiers (None: the default one).
    """
    own = extractor_of(data.name)
    if name == own and name not in EXTRACTORS and not _is_trained(data, root):
        how = f"`umd-bench extractor train {data.name} --size {data.image_size}`"
        raise FieldError(path, name, f"it is not trained yet: {how} trains it")
    facts = extractor_row(name, path=path, size=data.image_size, root=root).facts
    if facts.data in (None, data.name) and facts.takes(data.image_channels):
        return
    channels = f"{data.image_channels} channel{'s' if data.image_channels > 1 else ''}"
    wrong_data = facts.data not in (None, data.name)
    reads = f"images of {facts.data}, not of {data.name}" if wrong_data else f"no images of {channels}"
    fitting = _fitting(data, root)
    if not fitting:
        how = f"only {own} could, which `umd-bench extractor train {data.name} --size {data.image_size}` trains"
        raise FieldError(path, name, f"it reads {reads}; {how}")
    only_trained = fitting == [own]  # no other extractor takes these images, and neither does a timm model
    raise FieldError(path, name, f"it reads {reads}; {one_of(fitting) if only_trained else _accepted(fitting)}")


def extractor_for(data: DataFacts, root: Path | None = None) -> str:
    """The data set's own extractor, else the first of the table that takes any images.

    ``root`` is the data root of trained classifiers (None: the default one). Raises :class:`UserError` if none fits.
    """
    fitting = _fitting(data, root)
    if not fitting:
        raise UserError(
            f"no extractor takes images of {data.image_channels} channels, which {data.name} has: "
            f"`umd-bench extractor train {data.name} --size {data.image_size}` trains one"
        )
    return fitting[0]


def published_weights(name: str) -> Published:
    """The downloadable weights of the extractor ``name``. Raises :class:`UserError` for one whose weights are not published."""
    if name != INCEPTION:
        raise UserError(f"weights of {name!r} cannot be fetched: {one_of([INCEPTION])}")
    return inception.published()


def _fitting(data: DataFacts, root: Path | None) -> list[str]:
    """Extractors that take images of ``data``, its own first. Latents are scored as images, after decoding."""
    own = [name for name, row in EXTRACTORS.items() if row.facts.data == data.name]
    trained = [extractor_of(data.name)] if _is_trained(data, root) else []
    others = [name for name, row in EXTRACTORS.items() if row.facts.data is None and row.facts.takes(data.image_channels)]
    return own + trained + others


def _is_trained(data: DataFacts, root: Path | None) -> bool:
    """Whether the data set's own classifier was trained below the data root."""
    name = extractor_of(data.name)
    if name in EXTRACTORS:
        return False
    return find_trained(name, root if root is not None else data_root(), size=data.image_size, path=FIELD) is not None


def _accepted(names: Iterable[str]) -> str:
    return f"{one_of(names)}, or timm:NAME"
