"""DDIM with classifier-free guidance as a plain loop. It is the baseline of `bench sample`.

Each step calls the plain model twice, with the labels and with the null label, and computes its own coefficients. The only code
shared with ``engine/samplers.py`` is the noise process.
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
    """DDIM with eta = 0 (arXiv 2010.02502) from ``start`` [B, C, H, W]; returns x_0 [B, C, H, W] and the number of model calls.

    The model must predict eps.
    """
    x, calls = start, 0
    times = process.times(config.steps)
    for i, t in enumerate(times):
        B = len(x)
        at = torch.full((B,), t, device=x.device)
        mask_noise = torch.zeros(B, model.side**2, device=x.device)  # has no effect, since the mask ratio is 0
        _, eps, _ = model(x, at, mask_noise, 0.0, label)
        calls += 1
        if config.cfg_scale != 1:
            _, unguided, _ = model(x, at, mask_noise, 0.0, None)
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
    raise AssertionError("there is at least one time")
