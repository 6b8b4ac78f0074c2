"""Latents as training sees them: a fresh sample of the stored posterior each time, or its mean.

A row is the posterior N(mean, std^2) of the image and of its mirror image: float16 [2 views, 2 moments, C, h, w]. The mirror
image of a latent is not the latent of the mirror image, so both are stored. What the model sees is ``(z - shift) * scale``, of
about unit variance (Rombach et al., arXiv 2112.10752, appendix D.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from umd_bench.data.packs.manifest import VaeFacts

IMAGE, MIRRORED = 0, 1  # views


def posterior_sample(moments: Tensor, view: Tensor, eps: Tensor, vae: VaeFacts) -> Tensor:
    """``x_0 = (mean + std eps - shift) scale``, float32 [B, C, h, w].

    ``moments`` float16 [B, 2, 2, C, h, w], ``view`` bool [B] (true is mirrored), ``eps`` standard normal float32 [B, C, h, w].
    """
    chosen = moments[torch.arange(len(moments), device=moments.device), view.long()].float()
    mean, std = chosen.unbind(1)
    return (mean + std * eps - vae.shift) * vae.scale


def posterior_mean(moments: Tensor, vae: VaeFacts) -> Tensor:
    """``x_0`` of the image's own view without its noise: float16 [B, 2, 2, C, h, w] to float32 [B, C, h, w]."""
    return (moments[:, IMAGE, 0].float() - vae.shift) * vae.scale
