"""The model families that can be evaluated: ours, and architectures that others published.

Each has ``represent(x_t, t, block=, pool=)``, ``represent_each`` for several blocks and pools at once, and ``position``, which
says in words what its representation is. The forward pass of a model of type :data:`Sampled` predicts x_0 and the target;
samplers call it.
"""

from __future__ import annotations

import torch

from umd_bench.config.errors import UserError
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import ImportStage, WeightsStage
from umd_bench.data.datasets import DataFacts
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.published.dit import DiT
from umd_bench.engine.published.mae import MaeEncoder

Sampled = AutoEncoder | DiT
Evaluated = Sampled | MaeEncoder
_TOKENS = {"class": "mean of class tokens", "first_class": "first class token", "patches": "mean of patch tokens"}


def empty_model(spec: StageSpec, source: DataFacts) -> Evaluated:
    """The model of a stage that produces weights; its parameters are on the meta device and have no values.

    Raises :class:`UserError` for a stage without weights, and :class:`FieldError` if the patch does not divide the image side.
    """
    stage = spec.stage
    if not isinstance(stage, WeightsStage):
        raise UserError(f"run {spec.key} is a {spec.kind} stage and has no weights: name a pretrain, finetune or import stage")
    shape = {"size": source.size, "channels": source.channels}
    classes = source.classes if stage.labels else 0
    with torch.device("meta"):
        match spec.model.family:
            case "umd":
                return AutoEncoder(spec.model, **shape, classes=classes)
            case "dit":
                return DiT(spec.model, **shape, classes=classes)
            case "mae":
                return MaeEncoder(spec.model, **shape, pool=stage.pool if isinstance(stage, ImportStage) else "class")


def position(model: Evaluated, *, block: int | None, pool: str | None) -> str:
    """The representation with this block and pool, in words: ``mean of patch tokens after block 3 of 12``."""
    own = model.position.removesuffix(" after the last block")
    tokens = own if pool is None else _TOKENS[pool]
    if pool == "class" and isinstance(model, MaeEncoder):
        tokens = "class token"  # MAE has one
    if block not in (None, len(model.blocks)):
        return f"{tokens} after block {block} of {len(model.blocks)}"
    return model.position if tokens == own else tokens
