"""The table of checkpoint layouts, and the function that reads a file in one of them.

A new layout is a function from a file's tensors to :class:`Weights` and a row of :data:`LAYOUTS`. A new architecture is also a
module of this package, a family in ``ModelConfig`` and a case in ``engine/families.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.train_stage import ImportStage
from umd_bench.data.datasets import DataFacts
from umd_bench.engine.published import dit, mae, small_vision
from umd_bench.engine.published.files import read_weight_file
from umd_bench.engine.published.shapes import Weights


class Read(Protocol):
    """Convert a file's tensors. Raises :class:`UserError` naming the first parameter that is wrong."""

    def __call__(self, tensors: dict[str, Tensor], *, heads: int | None = None) -> Weights: ...


@dataclass(frozen=True)
class Layout:
    """A way of naming parameters, and how weights in that layout were trained.

    ``noise`` is the noise process that the weights are assumed to be trained with. ``sees_clean`` says whether they were
    trained on clean images; None if the architecture does not determine it.
    """

    read: Read
    family: str
    noise: NoiseConfig
    sees_clean: bool | None


LAYOUTS: dict[str, Layout] = {
    small_vision.NAME: Layout(small_vision.read_small_vision, "umd", NoiseConfig(), None),
    mae.NAME: Layout(mae.read_mae, "mae", NoiseConfig(), sees_clean=True),
    dit.NAME: Layout(dit.read_dit, "dit", dit.NOISE, sees_clean=False),
}


def layout(name: str, path: str) -> Layout:
    """The layout named ``name``. Raises :class:`FieldError` for the field ``path``, listing the valid names."""
    if name not in LAYOUTS:
        raise FieldError(path, name, one_of(LAYOUTS))
    return LAYOUTS[name]


def read_import(model: ModelConfig, stage: ImportStage, source: DataFacts, *, path: str = "stages.import") -> Weights:
    """Read the weights of the import stage at ``path`` and check them against the stage, its model and its data set.

    Raises :class:`UserError` for a file that is missing or damaged, or has another hash or layout. Raises :class:`FieldError`
    if the file's architecture, image size, channels or classes are not the trial's.
    """
    file = read_weight_file(Path(stage.file), sha256=stage.sha256)
    try:
        weights = layout(stage.layout, f"{path}.layout").read(file.tensors, heads=model.heads)
    except UserError as error:
        raise UserError(f"{stage.file}: {error}") from None
    for field, found in weights.model.model_dump().items():
        if found != getattr(model, field):
            raise FieldError(f"model.{field}", getattr(model, field), f"the weights of {stage.file} have {found}")
    if (weights.size, weights.channels) != (source.size, source.channels):
        raise FieldError("data.name", source.name, f"the weights of {stage.file} take {describe_images(weights)}")
    if weights.classes != stage.classes:
        raise FieldError(f"{path}.classes", stage.classes, f"the weights of {stage.file} have {weights.classes} classes")
    return weights


def describe_images(weights: Weights) -> str:
    """The images that the weights take: ``64 x 64 images of 3 channels and 10 classes``."""
    classes = f" and {weights.classes} classes" if weights.classes else ""
    return f"{weights.size} x {weights.size} images of {weights.channels} channels{classes}"
