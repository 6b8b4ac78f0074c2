"""DDIM with guidance as one would write it first: the baseline of `bench sample`.

The plain model is called twice a step, once with the labels and once with the null label; the coefficients of a step are worked
out in the step; nothing is shared with ``engine/samplers.py`` but the process that says what alpha and sigma are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from umd_bench.bench.plain.model import PlainModel
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.engine.diffusion.noise_process import NoiseProcess


@torch.no_grad()
def plain_ddim(
    model: PlainModel, process: NoiseProcess, config: GenerateStage, start: Tensor, label: Tensor | None
) -> tuple[Tensor, int]:
    """x_0 from ``start`` [B, C, H, W] for a model of eps, with eta = 0, and how often each sample went through the model."""
    x, calls = start, 0
    times = process.times(config.steps)
    for i, t in enumerate(times):
        B = len(x)
        at = torch.full((B,), t, device=x.device)
        everything = torch.zeros(B, model.side**2, device=x.device)  # mask noise: with a ratio of 0 all is kept
        _, eps, _ = model(x, at, everything, 0.0, label)
        calls += 1
        if config.cfg_scale != 1:
            _, unguided, _ = model(x, at, everything, 0.0, None)
            eps = unguided + config.cfg_scale * (eps - unguided)
            calls += 1
        alpha, sigma = (value.float().view(-1, 1, 1, 1) for value in process.path(at))
        x_0 = (x - sigma * eps) / alpha
        if config.clip:
            x_0 = torch.clamp(x_0, -1, 1)
            eps = (x - alpha * x_0) / sigma
        if i == len(times) - 1:
            return x_0, calls
        alpha, sigma = (
            value.float().view(-1, 1, 1, 1) for value in process.path(torch.full((B,), times[i + 1], device=x.device))
        )
        x = alpha * x_0 + sigma * eps
    raise AssertionError("a sequence of times is never empty")
