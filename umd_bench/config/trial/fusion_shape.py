"""Which training stages have one shape, so that they can be trained as one (engine/fusion/fused_step.py)."""

from __future__ import annotations

import json
from typing import Any

from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage

# What may differ, since it is a number that each stage applies to its own part. The share of clean images is one of them:
# products take unequal numbers of rows. A mask ratio is not: it decides how many tokens all rows have.
_OWN_STAGE = ("parent", "snapshot", "loss_weight", "min_snr_gamma", "snapshots")
_OWN_OPTIM = ("lr_per_256", "warmup_nimg", "weight_decay", "beta1", "beta2", "eps", "clip_norm", "ema_rate_per_256")


def shape_of(spec: StageSpec) -> str | None:
    """All that stages must share to be trained as one, as a text that is equal for those.

    None for what is not trained, for what is on several devices, and for what is compiled, since the shared step is not.
    """
    if not isinstance(spec.stage, TrainStage) or spec.devices > 1 or spec.resources.compile:
        return None
    stage: dict[str, Any] = spec.stage.model_dump(mode="json", exclude={*_OWN_STAGE})
    stage["corruption"].pop("r_t0")
    for name in _OWN_OPTIM:
        stage["optim"].pop(name)
    shared = {
        "stage": stage,
        "model": spec.model.model_dump(mode="json"),
        "data": spec.input_data.identity(),
        "resources": spec.resources.model_dump(mode="json"),
    }
    return json.dumps(shared, sort_keys=True)


def may_fuse(one: StageSpec, other: StageSpec) -> bool:
    """Whether two stages can be trained as one: they may differ in seed, parent, noise process, share of clean images, loss
    weight, learning rate and its warm-up, weight decay, betas, clipping and rate of the average, and in nothing else."""
    shape = shape_of(one)
    return shape is not None and shape == shape_of(other)
