"""How much arithmetic one training image costs, counted from shapes alone."""

from __future__ import annotations

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from umd_bench.config.trial import ModelConfig, NoiseConfig, TrainStage
from umd_bench.engine.corruption import Noise
from umd_bench.engine.model import AutoEncoder
from umd_bench.engine.objective import umd_loss
from umd_bench.engine.schedules import NoiseSchedule


@cache
def flops_per_image(config: ModelConfig, stage: TrainStage, *, size: int, channels: int, classes: int) -> float:
    """Floating-point operations (two a multiply-add) of matrix products, forward and backward, of one step over its batch.

    Runs the step on the meta device: nothing is computed and no memory is taken.
    """
    B = stage.batch
    with torch.device("meta"):
        model = AutoEncoder(config, size=size, channels=channels, classes=classes)
        x_0 = torch.empty(B, channels, size, size)
        t, drop = torch.empty(B, dtype=torch.int64), torch.empty(B, dtype=torch.bool)
        noise = Noise(t=t, eps=torch.empty_like(x_0), mask_noise=torch.empty(B, model.n_patches), drop_label=drop)
        label = t if stage.labels else None
        schedule = NoiseSchedule(NoiseConfig(), torch.device("meta"))
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(umd_loss(model, x_0, noise, stage.corruption, stage.n_clean, schedule, label).loss)
    return float(counter.get_total_flops()) / B
