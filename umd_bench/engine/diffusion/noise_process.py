"""The noise process of a trial: a schedule, the model's prediction target, and the times of training and sampling.

Shapes: B batch, C channels, H, W; ``t`` is 0 for a clean image and in [1, T] for a noised one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.engine.diffusion.schedules import SCHEDULES, Curves

Coefficient = float | Tensor


def velocity(alpha: Coefficient, sigma: Coefficient, straight: bool) -> tuple[Coefficient, Coefficient]:
    """(c, d) of ``v = dx/dtheta = c x_0 + d eps``: ``alpha eps - sigma x_0`` on the circle, ``eps - x_0`` on the straight line.

    Salimans and Ho (arXiv 2202.00512, section 2.4); Liu et al. (arXiv 2209.03003).
    """
    return (-1.0, 1.0) if straight else (-sigma, alpha)


# name in config/trial/noise.py -> function (alpha, sigma, straight) -> (c, d) of the target ``c x_0 + d eps``
PREDICTIONS: dict[str, Callable[[Coefficient, Coefficient, bool], tuple[Coefficient, Coefficient]]] = {
    "eps": lambda alpha, sigma, straight: (0.0, 1.0),
    "x_0": lambda alpha, sigma, straight: (1.0, 0.0),
    "v": velocity,
}


class NoiseProcess:
    """``x_t = alpha(t) x_0 + sigma(t) eps`` with the schedule and target of ``config``, for tensors of times on ``device``."""

    def __init__(self, config: NoiseConfig, device: torch.device | None = None) -> None:
        build = SCHEDULES[config.schedule]
        self.timesteps = config.timesteps
        self._target = PREDICTIONS[config.prediction]
        self._curves = build(config.timesteps, device, **config.parameters)
        self._on_host = build(config.timesteps, None, **config.parameters)
        self._known: dict[float, tuple[float, float]] = {}
        self.discrete, self.straight = self._curves.discrete, self._curves.straight

    def path(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at ``t`` [..], 0 or in [1, T]: float64 [..] each."""
        return _from_clean(self._curves, t.double())

    def at(self, t: float) -> tuple[float, float]:
        """alpha and sigma at one time, computed on the host, which therefore does not wait for the device."""
        if t not in self._known:  # samplers call this several times for each time and batch
            alpha, sigma = _from_clean(self._on_host, torch.tensor(t, dtype=torch.float64))
            self._known[t] = alpha.item(), sigma.item()
        return self._known[t]

    def theta(self, t: float) -> float:
        """The position on the path at one time: an angle in [0, pi/2] on a circle, a fraction in [0, 1] on a straight line."""
        alpha, sigma = self.at(t)
        return sigma if self.straight else math.atan2(sigma, alpha)

    def trained_times(self, q: Tensor) -> Tensor:
        """Times of training from their quantiles: ``q`` [..] float64 uniform in [0, 1) -> t [..] float64 in [1, T]."""
        return self._curves.quantile(q)

    def times(self, steps: int) -> list[float]:
        """``steps`` evenly spaced times from T downwards, then 1: [steps + 1].

        Under a discrete schedule the times are whole numbers, and ``steps`` is at most T. If it divides T, the times are the
        official ones.
        """
        T = self.timesteps
        if self.discrete:
            return [*(T - i * T // steps for i in range(steps)), 1]
        return [T - i * (T - 1) / steps for i in range(steps + 1)]

    def q_sample(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """``x_t`` (UMD paper, section 3; DDPM, equation 4); at t = 0 exactly x_0. [B, C, H, W], ``t`` [B] -> [B, C, H, W]."""
        alpha, sigma = self._by_image(t, x_0)
        return alpha * x_0 + sigma * eps

    def target(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """The prediction target ``c x_0 + d eps``. [B, C, H, W], ``t`` [B] -> [B, C, H, W]."""
        c, d = self._target(*self._by_image(t, x_0), self.straight)
        return c * x_0 + d * eps

    def solve(self, x_t: Tensor, t: float, target: Tensor) -> tuple[Tensor, Tensor]:
        """x_0 and eps from a predicted target, at one time for all images. [B, C, H, W] twice -> two of [B, C, H, W].

        ``x_0 = (d x_t - sigma target) / det``, ``eps = (alpha target - c x_t) / det``, ``det = alpha d - sigma c``.
        """
        alpha, sigma = self.at(t)
        c, d = self._target(alpha, sigma, self.straight)
        det = alpha * d - sigma * c
        return (d * x_t - sigma * target) / det, (alpha * target - c * x_t) / det

    def min_snr(self, t: Tensor, gamma: float) -> Tensor:
        """The target error's weight that gives x_0's error the weight ``min(SNR, gamma)``. ``t`` [..] >= 1 -> float64 [..].

        Hang et al. (arXiv 2303.09556, section 3.4): ``min(SNR, gamma) / SNR`` for eps, ``min(SNR, gamma)`` for x_0,
        ``min(SNR, gamma) / (SNR + 1)`` for v on the circle; an error of x_0 is ``det / sigma`` times as large in the target.
        """
        alpha, sigma = self.path(t)
        c, d = self._target(alpha, sigma, self.straight)
        return (alpha / sigma).square().clamp(max=gamma) * (sigma / (alpha * d - sigma * c)).square()

    def _by_image(self, t: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma at ``t`` [B] as [B, 1, 1, 1] of the images' dtype."""
        alpha, sigma = self.path(t)
        return alpha.to(images.dtype).view(-1, 1, 1, 1), sigma.to(images.dtype).view(-1, 1, 1, 1)


def _from_clean(curves: Curves, t: Tensor) -> tuple[Tensor, Tensor]:
    """alpha and sigma of the schedule for t >= 1; exactly 1 and 0 at t = 0."""
    alpha, sigma = curves.path(t.clamp(min=1))
    return torch.where(t < 1, 1.0, alpha), torch.where(t < 1, 0.0, sigma)
