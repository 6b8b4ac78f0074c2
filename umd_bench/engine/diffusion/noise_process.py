"""The noise process of a trial: a schedule, what the model predicts under it, and the times that are trained and sampled.

Shapes: B batch, C channels, H, W; ``t`` is 0 for a clean image and in [1, T] for a noised one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.engine.diffusion.schedules import SCHEDULES, Process

Coefficient = float | Tensor


def velocity(alpha: Coefficient, sigma: Coefficient, straight: bool) -> tuple[Coefficient, Coefficient]:
    """(c, d) of ``v = dx/dtheta = c x_0 + d eps``: ``alpha eps - sigma x_0`` on the circle, ``eps - x_0`` on the straight line.

    Salimans and Ho (arXiv 2202.00512, section 2.4); Liu et al. (arXiv 2209.03003).
    """
    return (-1.0, 1.0) if straight else (-sigma, alpha)


# name of config/trial/noise.py -> (alpha, sigma, straight) -> (c, d) of the target ``c x_0 + d eps``
PREDICTIONS: dict[str, Callable[[Coefficient, Coefficient, bool], tuple[Coefficient, Coefficient]]] = {
    "eps": lambda alpha, sigma, straight: (0.0, 1.0),
    "x_0": lambda alpha, sigma, straight: (1.0, 0.0),
    "v": velocity,
}


class NoiseProcess:
    """``x_t = alpha(t) x_0 + sigma(t) eps`` as ``config`` says. Tensors of times lie on ``device``, single ones are numbers."""

    def __init__(self, config: NoiseConfig, device: torch.device | None = None) -> None:
        build = SCHEDULES[config.schedule]
        self.timesteps = config.timesteps
        self._target = PREDICTIONS[config.prediction]
        self._curves = build(config.timesteps, device, **config.parameters)
        self._on_host = build(config.timesteps, None, **config.parameters)
        self._known: dict[float, tuple[float, float]] = {}
        self.discrete, self.straight = self._curves.discrete, self._curves.straight

    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma, float64, at ``t`` [..], 0 or in [1, T]."""
        return _from_clean(self._curves, t.double())

    def at(self, t: float) -> tuple[float, float]:
        """alpha and sigma at one time, without waiting for the device."""
        if t not in self._known:  # a sampler asks for each of its times in every batch, several times
            alpha, sigma = _from_clean(self._on_host, torch.tensor(t, dtype=torch.float64))
            self._known[t] = alpha.item(), sigma.item()
        return self._known[t]

    def theta(self, t: float) -> float:
        """The place on the path at one time: an angle in [0, pi/2], or on a straight line a share in [0, 1]."""
        alpha, sigma = self.at(t)
        return sigma if self.straight else math.atan2(sigma, alpha)

    def trained_times(self, q: Tensor) -> Tensor:
        """The times of training by their rank: ``q`` [..] float64 uniform in [0, 1) -> t [..] float64 in [1, T]."""
        return self._curves.quantile(q)

    def times(self, steps: int) -> list[float]:
        """``steps`` different times from T downwards, evenly spaced, and 1 at last: [steps + 1].

        A discrete schedule has whole ones, the official ones where ``steps`` divides T, and at most T steps.
        """
        T = self.timesteps
        if self.discrete:
            return [*(T - i * T // steps for i in range(steps)), 1]
        return [T - i * (T - 1) / steps for i in range(steps + 1)]

    def q_sample(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """``x_t`` (UMD paper, section 3; DDPM equation 4); at t = 0 it is x_0, bit for bit. [B, C, H, W], ``t`` [B]."""
        alpha, sigma = self._by_image(t, x_0)
        return alpha * x_0 + sigma * eps

    def target(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """What the model should predict: ``c x_0 + d eps``. [B, C, H, W], ``t`` [B] -> [B, C, H, W]."""
        c, d = self._target(*self._by_image(t, x_0), self.straight)
        return c * x_0 + d * eps

    def solve(self, x_t: Tensor, t: float, target: Tensor) -> tuple[Tensor, Tensor]:
        """The x_0 and eps that a predicted target stands for, at one time for all. [B, C, H, W] -> two of them.

        ``x_0 = (d x_t - sigma target) / det``, ``eps = (alpha target - c x_t) / det``, ``det = alpha d - sigma c``.
        """
        alpha, sigma = self.at(t)
        c, d = self._target(alpha, sigma, self.straight)
        det = alpha * d - sigma * c
        return (d * x_t - sigma * target) / det, (alpha * target - c * x_t) / det

    def min_snr(self, t: Tensor, gamma: float) -> Tensor:
        """The weight of the target's squared error that weighs x_0's by ``min(SNR, gamma)``. ``t`` [..] >= 1 -> float64 [..].

        Hang et al. (arXiv 2303.09556, section 3.4): ``min(SNR, gamma) / SNR`` for eps, ``min(SNR, gamma)`` for x_0,
        ``min(SNR, gamma) / (SNR + 1)`` for v on the circle; an error of x_0 is ``det / sigma`` times as large in the target.
        """
        alpha, sigma = self.path(t)
        c, d = self._target(alpha, sigma, self.straight)
        return (alpha / sigma).square().clamp(max=gamma) * (sigma / (alpha * d - sigma * c)).square()

    def _by_image(self, t: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma as [B, 1, 1, 1] of the images' own precision."""
        alpha, sigma = self.path(t)
        return alpha.to(images.dtype).view(-1, 1, 1, 1), sigma.to(images.dtype).view(-1, 1, 1, 1)


def _from_clean(curves: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha = 1 and sigma = 0 at t = 0, exactly, and the schedule's from 1 on."""
    alpha, sigma = curves.path(t.clamp(min=1))
    return torch.where(t < 1, 1.0, alpha), torch.where(t < 1, 0.0, sigma)
