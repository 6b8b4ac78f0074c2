"""The table of checkpoint layouts, and the import of a file in one of them as a stage's weights.

A new layout is a function from a file's tensors to :class:`Weights` and its row in :data:`LAYOUTS`; an architecture that is not
ours yet is a file of its own beside, a family in ``ModelConfig``, and a case in ``engine/families.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from torch import Tensor

from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import ImportStage
from umd_bench.data.datasets import DataFacts
from umd_bench.engine.published import dit, mae, small_vision
from umd_bench.engine.published.files import read_checkpoint
from umd_bench.engine.published.shapes import Weights
from umd_bench.engine.training.snapshot import publish_snapshot
from umd_bench.store.run import Attempt


class Read(Protocol):
    """From a file's tensors to weights; raises :class:`UserError` naming the parameter that is wrong."""

    def __call__(self, tensors: dict[str, Tensor], *, heads: int | None = None) -> Weights: ...


@dataclass(frozen=True)
class Layout:
    """One way of naming parameters.

    ``noise`` is the process its weights are taken to be trained with; ``sees_clean`` whether they were trained on clean images,
    None where the architecture leaves that open.
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
    """The layout of that name; an unknown one raises :class:`FieldError` for the field ``path`` listing the valid names."""
    if name not in LAYOUTS:
        raise FieldError(path, name, one_of(LAYOUTS))
    return LAYOUTS[name]


def read_import(model: ModelConfig, stage: ImportStage, source: DataFacts, *, path: str = "stages.import") -> Weights:
    """The weights of the import stage at ``path``, proved to be those that the stage, its model and its data set speak of.

    Raises :class:`UserError` for a file that is missing, damaged, another one, or of another layout, and :class:`FieldError`
    where its architecture, size, channels or classes are not those of the trial.
    """
    checkpoint = read_checkpoint(Path(stage.file), sha256=stage.sha256)
    try:
        weights = layout(stage.layout, f"{path}.layout").read(checkpoint.tensors, heads=model.heads)
    except UserError as error:
        raise UserError(f"{stage.file}: {error}") from None
    for field, found in weights.model.model_dump().items():
        if found != getattr(model, field):
            raise FieldError(f"model.{field}", getattr(model, field), f"the weights of {stage.file} have {found}")
    if (weights.size, weights.channels) != (source.size, source.channels):
        raise FieldError("data.name", source.name, f"the weights of {stage.file} take {describe_images(weights)}")
    if weights.classes != stage.classes:
        raise FieldError(f"{path}.classes", stage.classes, f"the weights of {stage.file} know {weights.classes} classes")
    return weights


def describe_images(weights: Weights) -> str:
    """``64 x 64 images of 3 channels and 10 classes``."""
    classes = f" and {weights.classes} classes" if weights.classes else ""
    return f"{weights.size} x {weights.size} images of {weights.channels} channels{classes}"


def run_import(spec: StageSpec, source: DataFacts, attempt: Attempt) -> dict[str, str | int]:
    """Publish the file's weights as the stage's snapshot; what they are, as facts. Raises as :func:`read_import`."""
    stage = spec.stage
    if not isinstance(stage, ImportStage):
        raise UserError(f"a {spec.kind} stage imports nothing: expected an import stage")
    weights = read_import(spec.model, stage, source)
    for note in weights.notes:
        attempt.event("note", message=note)
    publish_snapshot(attempt, stage.nimg, weights.state, None, {})
    return {
        "layout": stage.layout,
        "sha256": stage.sha256,
        "parameters": sum(value.numel() for value in weights.state.values()),
        "nimg": stage.nimg,
        "notes": "; ".join(weights.notes),
    }
