"""How much arithmetic one training image costs, counted from shapes alone."""

from __future__ import annotations

from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from umd_bench.config.model import ModelConfig
from umd_bench.config.noise import NoiseConfig
from umd_bench.config.training import TrainStage
from umd_bench.engine.corruption import Noise
from umd_bench.engine.model import AutoEncoder
from umd_bench.engine.noise_process import NoiseProcess
from umd_bench.engine.objective import umd_loss


@cache
def flops_per_image(config: ModelConfig, stage: TrainStage, *, size: int, channels: int, classes: int) -> float:
    """Floating-point operations (two a multiply-add) of matrix products, forward and backward, of one step over its batch.

    Runs the step on the meta device: nothing is computed and no memory is taken.
    """
    B = stage.batch
    with torch.device("meta"):
        model = AutoEncoder(config, size=size, channels=channels, classes=classes)
        x_0 = torch.empty(B, channels, size, size)
        drop = torch.empty(B, dtype=torch.bool)
        noise = Noise(
            t=torch.empty(B, dtype=torch.float64),
            eps=torch.empty_like(x_0),
            mask_noise=torch.empty(B, model.n_patches),
            drop_label=drop,
        )
        label = torch.empty(B, dtype=torch.int64) if stage.labels else None
        process = NoiseProcess(NoiseConfig(), torch.device("meta"))
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(umd_loss(model, x_0, noise, stage, process, label).loss)
    return float(counter.get_total_flops()) / B
