"""Noise schedules: name -> betas -> alpha_bar, and the noising of a clean image.

``t`` is 0 for a clean image and 1..T for a noised one, so ``alpha_bar`` has T + 1 entries and ``alpha_bar[0] = 1``: the
official implementation's schedule index i is ``t = i + 1``. Tables are float64; images keep their own precision.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from umd_bench.config.errors import FieldError, one_of
from umd_bench.config.trial import NoiseConfig

Table = npt.NDArray[np.float64]


def linear(timesteps: int) -> Table:
    """Betas evenly spaced from 1e-4 to 0.02 (Ho et al., arXiv 2006.11239, section 4); official for latents. [T]."""
    return np.linspace(1e-4, 0.02, timesteps)


def cosine(timesteps: int) -> Table:
    """``beta_i = min(1 - f((i+1)/T) / f(i/T), 0.999)`` with ``f(u) = cos^2((u + .008)/1.008 pi/2)``; official for pixels. [T].

    Nichol and Dhariwal, arXiv 2102.09672, equation 17.
    """
    u = np.arange(timesteps + 1) / timesteps
    f: Table = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


def alpha_bar_of(betas: Table) -> Table:
    """``alpha_bar_t = prod_{s <= t} (1 - beta_s)``, with ``alpha_bar_0 = 1`` in front. [T] -> [T + 1]."""
    return np.concatenate([[1.0], np.cumprod(1 - betas)])


# name -> (timesteps -> alpha_bar [T + 1], decreasing from 1)
SCHEDULES: dict[str, Callable[[int], Table]] = {
    "cosine": lambda timesteps: alpha_bar_of(cosine(timesteps)),
    "linear": lambda timesteps: alpha_bar_of(linear(timesteps)),
}


class NoiseSchedule:
    """The noise process of a trial: ``alpha_bar`` float64 [T + 1] on ``device``, indexed by t (0 is clean).

    Raises :class:`FieldError` for a name that is not in :data:`SCHEDULES`.
    """

    def __init__(self, config: NoiseConfig, device: torch.device | None = None) -> None:
        if config.schedule not in SCHEDULES:
            raise FieldError("noise.schedule", config.schedule, one_of(SCHEDULES))
        self.timesteps = config.timesteps
        self.alpha_bar = torch.from_numpy(SCHEDULES[config.schedule](config.timesteps)).to(device)

    def q_sample(self, x_0: Tensor, t: Tensor, eps: Tensor) -> Tensor:
        """``x_t = sqrt(alpha_bar_t) x_0 + sqrt(1 - alpha_bar_t) eps`` (UMD paper, section 3; DDPM equation 4).

        ``x_0``, ``eps`` [B, C, H, W]; ``t`` [B] int64 in 0..T; t = 0 returns x_0 itself, bit for bit.
        """
        alpha_bar = self.alpha_bar[t].view(-1, 1, 1, 1)
        return alpha_bar.sqrt().to(x_0.dtype) * x_0 + (1 - alpha_bar).sqrt().to(x_0.dtype) * eps
