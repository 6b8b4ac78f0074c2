"""The training step as plain eager fp32 PyTorch. It is the baseline of `bench train`.

It consists of two passes of :class:`PlainModel`, the loss over pixels, ``clip_grad_norm_``, AdamW one parameter at a time, and
the weight average in a Python loop. Tests show that its loss, gradients and weights equal the engine's up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

from umd_bench.bench.plain.model import PlainModel
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.engine.diffusion.corruption import Noise
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.training.optim import is_decayed


def plain_loss(
    model: PlainModel, x_0: Tensor, noise: Noise, stage: TrainStage, process: NoiseProcess, label: Tensor | None
) -> Tensor:
    """``L_UMD`` (UMD paper, section 3.2) of a batch whose last ``stage.n_clean`` images stay clean. [B, C, H, W] -> scalar."""
    B, n_clean, p = len(x_0), stage.n_clean, model.patch
    n, config = B - n_clean, stage.corruption
    loss = x_0.new_zeros(())
    if n:
        if label is not None:
            label = torch.where(noise.drop_label, model.classes, label)[:n]
        x, t, eps = x_0[:n], noise.t[:n], noise.eps[:n]
        x_hat, target_hat, mask = model(process.q_sample(x, t, eps), t, noise.mask_noise[:n], config.mask_ratio, label)
        error = (target_hat - process.target(x, t, eps)) ** 2
        if stage.loss_weight == "min_snr":
            error = error * process.min_snr(t, stage.min_snr_gamma).to(x.dtype)[:, None, None, None]
        if config.mask_ratio > 0:
            M = _over_pixels(mask, model.side, p)
            hidden = ((x_hat - x) ** 2 * M).mean() / M.mean()
            visible = (error * (1 - M)).mean() / (1 - M).mean()
        else:
            hidden, visible = ((x_hat - x) ** 2).mean(), error.mean()
        loss = loss + n / B * (hidden + visible) / 2
    if n_clean:
        x, t = x_0[n:], x_0.new_zeros(n_clean)
        x_hat, _, mask = model(x, t, noise.mask_noise[n:], config.mask_ratio_t0, None)
        M = _over_pixels(mask, model.side, p)
        loss = loss + n_clean / B * ((x_hat - x) ** 2 * M).mean() / M.mean()
    return loss


class PlainStep:
    """The state of plain training: model, optimizer and weight average. ``weights`` is the engine's state dict."""

    def __init__(self, spec: StageSpec, stage: TrainStage, weights: dict[str, Tensor], *, size: int, channels: int) -> None:
        device = weights["cls_token"].device
        classes = len(weights["label_embed.table.weight"]) - 1 if "label_embed.table.weight" in weights else 0
        self.stage, self.process = stage, NoiseProcess(spec.noise, device)
        self.model = PlainModel(spec.model, size=size, channels=channels, classes=classes).to(device)
        self.model.load_state_dict(weights)
        decay = [p for name, p in self.model.named_parameters() if is_decayed(name)]
        no_decay = [p for name, p in self.model.named_parameters() if not is_decayed(name)]
        optim = stage.optim
        self.optimizer = torch.optim.AdamW(
            [{"params": decay, "weight_decay": optim.weight_decay}, {"params": no_decay, "weight_decay": 0.0}],
            lr=stage.lr_peak,
            betas=(optim.beta1, optim.beta2),
            eps=optim.eps,
            foreach=False,
            fused=False,
        )
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()} if optim.ema else {}

    def __call__(self, x_0: Tensor, noise: Noise, label: Tensor | None) -> Tensor:
        """Make one step on a batch [B, C, H, W]; returns its loss, a scalar."""
        loss = plain_loss(self.model, x_0, noise, self.stage, self.process, label)
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.stage.optim.clip_norm, foreach=False)
        self.optimizer.step()
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                if name in self.average:
                    self.average[name].mul_(self.stage.ema_decay).add_(p, alpha=1 - self.stage.ema_decay)
        return loss.detach()


def _over_pixels(mask: Tensor, side: int, patch: int) -> Tensor:
    """[B, L] -> [B, 1, H, W]."""
    return mask.reshape(-1, 1, side, side).repeat_interleave(patch, dim=2).repeat_interleave(patch, dim=3)
