"""Which training stages have one shape, so that they can be fused. Imports no torch."""

from __future__ import annotations

import json
from typing import Any

from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage

# Fields that may differ, because each stage applies them to its own part of the shared work. The share of clean images (r_t0)
# may differ, since the matrix products accept unequal numbers of rows per stage. A mask ratio may not differ, because it sets
# the number of tokens in a row.
_OWN_STAGE = ("parent", "snapshot", "loss_weight", "min_snr_gamma", "snapshots")
_OWN_OPTIM = ("lr_per_256", "warmup_nimg", "weight_decay", "beta1", "beta2", "eps", "clip_norm", "ema_rate_per_256")


def shape_key(spec: StageSpec) -> str | None:
    """Everything in which stages must agree to be fused, as JSON: two stages can be fused if their keys are equal.

    None for a stage that trains nothing, that runs on several devices, or that is compiled (the shared step is not compiled).
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
    """Whether two stages can be fused.

    They may differ in seed, parent, noise process, share of clean images, loss weight, learning rate and its warm-up, weight
    decay, betas, epsilon, clipping, rate of the average and snapshots, and in nothing else.
    """
    key = shape_key(one)
    return key is not None and key == shape_key(other)
