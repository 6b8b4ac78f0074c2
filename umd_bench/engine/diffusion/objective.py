"""The objective: ``L_UMD = r_t0 L_{t=0} + (1 - r_t0) L_{t>=1}`` (UMD paper, section 3.2); MAE and DiT are special cases.

M is the mask (0 is keep, 1 is remove), repeated over the pixels of a patch; ``mean`` runs over batch, pixels and channels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.engine.diffusion.corruption import Noise, corrupt
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.networks.auto_encoder import AutoEncoder, Output

# name -> weights [B] of the noised images' target errors at their times [B]. The error of x_0 at removed patches always has
# weight 1, because predicting x_0 there is not denoising.
LOSS_WEIGHTS: dict[str, Callable[[NoiseProcess, TrainStage, Tensor], Tensor]] = {
    "uniform": lambda process, stage, t: torch.ones_like(t),
    "min_snr": lambda process, stage, t: process.min_snr(t, stage.min_snr_gamma),
}


class Losses(NamedTuple):
    """Scalars of one batch: the objective, the loss of clean images and the loss of noised ones (0 without such images)."""

    loss: Tensor
    loss_t0: Tensor
    loss_t: Tensor


class Pass(NamedTuple):
    """The model's input for one group of images, clean or noised: see :meth:`AutoEncoder.forward`."""

    x_t: Tensor
    t: Tensor
    mask_noise: Tensor
    mask_ratio: float
    label: Tensor | None = None


Forward = Callable[[AutoEncoder, list[Pass]], list[Output]]


def forward_passes(model: AutoEncoder, passes: list[Pass]) -> list[Output]:
    """The model on each group.

    This function is the unit of compilation. All groups are one graph, so weights are cast once and gradients come out summed.
    The noise process and the loss are outside, so trials that differ in them share the compiled code.
    """
    return [model(p.x_t, p.t, mask_noise=p.mask_noise, mask_ratio=p.mask_ratio, label=p.label) for p in passes]


def clean_loss(x_hat: Tensor, x_0: Tensor, mask: Tensor) -> Tensor:
    """``L_0 = mean((x_hat - x_0)^2 M) / mean(M)``: MAE's loss without pixel normalisation. Images [B, C, H, W], mask [B, L]."""
    return (_patch_error(x_hat, x_0, mask) * mask).mean() / mask.mean()


def noised_loss(
    x_hat: Tensor, x_0: Tensor, target_hat: Tensor, target: Tensor, mask: Tensor, weight: Tensor, *, masked: bool
) -> Tensor:
    """``L_t = 1/2 [mean(w (target_hat - target)^2 (1 - M)) / mean(1 - M) + mean((x_hat - x_0)^2 M) / mean(M)]``.

    In the paper the target is eps and w = 1. If nothing is ``masked`` both means run over all pixels (DiT's loss with two
    heads). Images [B, C, H, W], mask [B, L], ``weight`` w [B].
    """
    target_error, x_0_error = weight.unsqueeze(1) * _patch_error(target_hat, target, mask), _patch_error(x_hat, x_0, mask)
    if not masked:
        return (target_error.mean() + x_0_error.mean()) / 2
    return ((target_error * (1 - mask)).mean() / (1 - mask).mean() + (x_0_error * mask).mean() / mask.mean()) / 2


def umd_loss(
    model: AutoEncoder,
    x_0: Tensor,
    noise: Noise,
    stage: TrainStage,
    process: NoiseProcess,
    label: Tensor | None = None,
    *,
    n_clean: int | None = None,
    forward: Forward = forward_passes,
) -> Losses:
    """The objective on a batch whose last ``n_clean`` images stay clean; None means ``stage.n_clean``, for a whole batch.

    ``x_0`` [B, C, H, W] in [-1, 1]; ``label`` [B] int64 or None. Noised and clean images have different numbers of visible
    patches, so they are two passes. Clean images get no labels; noised ones get the null label if ``noise.drop_label``.
    """
    config, n_clean = stage.corruption, stage.n_clean if n_clean is None else n_clean
    x_t, t = corrupt(x_0, noise, n_clean, process)
    B, n_noised = len(x_0), len(x_0) - n_clean
    noised, clean = slice(None, n_noised), slice(n_noised, None)
    passes = []
    if n_noised:
        if label is not None:
            assert model.label_embed is not None
            label = torch.where(noise.drop_label, model.label_embed.null, label)[noised]
        passes.append(Pass(x_t[noised], t[noised], noise.mask_noise[noised], config.mask_ratio, label))
    if n_clean:
        passes.append(Pass(x_t[clean], t[-1:], noise.mask_noise[clean], config.mask_ratio_t0))
    outputs = forward(model, passes)
    loss_t0 = loss_t = x_0.new_zeros(())
    if n_noised:
        out = outputs[0]
        target = process.target(x_0[noised], t[noised], noise.eps[noised])
        weight = LOSS_WEIGHTS[stage.loss_weight](process, stage, t[noised]).to(x_0.dtype)
        masked = config.mask_ratio > 0
        loss_t = noised_loss(out.x_0, x_0[noised], out.target, target, out.mask, weight, masked=masked)
    if n_clean:
        out = outputs[-1]
        loss_t0 = clean_loss(out.x_0, x_0[clean], out.mask)
    return Losses(loss_t * (1 - n_clean / B) + loss_t0 * (n_clean / B), loss_t0, loss_t)


def _patch_error(prediction: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error of each patch. [B, C, H, W] twice -> [B, L]."""
    B, C, H, W = target.shape
    side = int(mask.shape[1] ** 0.5)
    error = (prediction - target).square().view(B, C, side, H // side, side, W // side)
    return error.mean(dim=(1, 3, 5)).flatten(1)
