"""The corruption of a batch: which images stay clean, how much noise the others get, which labels are dropped.

Draws are separate from their use: :func:`draw_noise` draws for the whole batch, whatever part of it stays clean. So two runs
that differ in ``r_t0`` or in a mask ratio draw the same times, noise and mask noise.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from umd_bench.engine.diffusion.noise_process import NoiseProcess

LABEL_DROP = 0.1  # probability that a label becomes the null label in training (UMD paper, section 4)


class Noise(NamedTuple):
    """The random draws of one step for B images."""

    t: Tensor  # [B] float64 in [1, T], distributed as the schedule says
    eps: Tensor  # [B, C, H, W] float32, standard normal
    mask_noise: Tensor  # [B, L] float32, uniform in [0, 1)
    drop_label: Tensor  # [B] bool


def draw_noise(x_0: Tensor, n_patches: int, process: NoiseProcess, generator: torch.Generator) -> Noise:
    """Draw times, noise, mask noise and label dropout for ``x_0`` [B, C, H, W], on the generator's device.

    Under every schedule an image gets the same quantile of the schedule's times, so runs that differ in the schedule can be
    paired.
    """
    B, device = len(x_0), generator.device
    return Noise(
        t=process.trained_times(torch.rand(B, generator=generator, device=device, dtype=torch.float64)),
        eps=torch.randn(x_0.shape, generator=generator, device=device),
        mask_noise=torch.rand(B, n_patches, generator=generator, device=device),
        drop_label=torch.rand(B, generator=generator, device=device) < LABEL_DROP,
    )


def corrupt(x_0: Tensor, noise: Noise, n_clean: int, process: NoiseProcess) -> tuple[Tensor, Tensor]:
    """``x_t`` [B, C, H, W] and ``t`` [B]: the last ``n_clean`` rows stay clean (t = 0), the others get their ``noise.t``."""
    t = noise.t.clone()
    t[len(t) - n_clean :] = 0
    return process.q_sample(x_0, t, noise.eps), t
