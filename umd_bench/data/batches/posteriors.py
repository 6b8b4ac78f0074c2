"""Latents from stored posteriors: a fresh sample of the posterior at each training step, or its mean.

A row holds the posteriors N(mean, std^2) of an image and of its mirror image: float16 [2 views, 2 moments, C, h, w]. Both are
stored because the mirror image of a latent is not the latent of the mirror image. The model's input is ``(z - shift) * scale``,
which has about unit variance (Rombach et al., arXiv 2112.10752, appendix D.1).
"""

from __future__ import annotations

import torch
from torch import Tensor

from umd_bench.data.packs.manifest import VaeFacts

IMAGE, MIRRORED = 0, 1  # views


def posterior_sample(moments: Tensor, view: Tensor, eps: Tensor, vae: VaeFacts) -> Tensor:
    """``x_0 = (mean + std eps - shift) scale``, float32 [B, C, h, w].

    ``moments`` float16 [B, 2, 2, C, h, w], ``view`` bool [B] (true: the mirror image), ``eps`` standard normal float32 [B, C,
    h, w].
    """
    chosen = moments[torch.arange(len(moments), device=moments.device), view.long()].float()
    mean, std = chosen.unbind(1)
    return (mean + std * eps - vae.shift) * vae.scale


def posterior_mean(moments: Tensor, vae: VaeFacts) -> Tensor:
    """``x_0 = (mean - shift) scale`` of the image itself: float16 [B, 2, 2, C, h, w] to float32 [B, C, h, w]."""
    return (moments[:, IMAGE, 0].float() - vae.shift) * vae.scale
