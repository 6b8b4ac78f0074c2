"""Noise schedules: the weights of image and noise at time t, and the distribution of the times in training.

``x_t = alpha(t) x_0 + sigma(t) eps``. ``t`` is 0 for a clean image and in [1, T] for a noised one; the official
implementation's schedule index is ``i = t - 1``. A schedule is a function ``(T, device, its parameters) -> Curves`` and a row
of :data:`SCHEDULES`; ``config/trial/noise.py`` declares its parameters. Everything is float64.

In variance-preserving processes (alpha, sigma) lies on a circle, ``alpha = cos(theta)``, ``sigma = sin(theta)``; in rectified
flows it lies on a straight line, ``alpha = 1 - theta``, ``sigma = theta``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Table = npt.NDArray[np.float64]
Curve = Callable[[Tensor], Tensor]  # float64 to float64, any shape


@dataclass(frozen=True)
class Curves:
    """A schedule's functions of time. Times are whole numbers if it is ``discrete``, else any real numbers in [1, T].

    ``path`` maps t in [1, T] to alpha and sigma. ``quantile`` maps q in [0, 1) to t: the inverse distribution function of the
    times in training. It rises with q, so a draw of q means the same quantile of the noise under every schedule. ``straight``:
    (alpha, sigma) lies on a straight line.
    """

    path: Callable[[Tensor], tuple[Tensor, Tensor]]
    quantile: Curve
    discrete: bool = False
    straight: bool = False


def _uniform(timesteps: int) -> Curve:
    """Uniform in [1, T]."""
    return lambda q: 1 + q * (timesteps - 1)


def _flow(timesteps: int, warp: Curve, quantile: Curve) -> Curves:
    """A straight path with ``u = warp(t / (T + 1))``."""

    def path(t: Tensor) -> tuple[Tensor, Tensor]:
        u = warp(t / (timesteps + 1))
        return 1 - u, u

    return Curves(path, quantile, straight=True)


def linear_betas(timesteps: int) -> Table:
    """Betas evenly spaced from 1e-4 to 0.02 (Ho et al., arXiv 2006.11239, section 4), the official ones for latents: [T]."""
    return np.linspace(1e-4, 0.02, timesteps)


def cosine_betas(timesteps: int) -> Table:
    """``beta_i = min(1 - f((i+1)/T) / f(i/T), 0.999)`` with ``f(u) = cos^2((u + .008)/1.008 pi/2)``. [T].

    Nichol and Dhariwal, arXiv 2102.09672, equation 17; the official betas for pixels.
    """
    u = np.arange(timesteps + 1) / timesteps
    f: Table = np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.minimum(1 - f[1:] / f[:-1], 0.999)


def alpha_bar_of(betas: Table) -> Table:
    """``alpha_bar_t = prod_{s <= t} (1 - beta_s)`` for t in 0..T, so ``alpha_bar_0 = 1``. [T] -> [T + 1]."""
    return np.concatenate([[1.0], np.cumprod(1 - betas)])


def _discrete(betas: Callable[[int], Table], timesteps: int, device: torch.device | None) -> Curves:
    """DDPM's chain: ``alpha = sqrt(alpha_bar)``, ``sigma = sqrt(1 - alpha_bar)``; t is uniform in 1..T."""
    alpha_bar = torch.from_numpy(alpha_bar_of(betas(timesteps))).to(device)

    def path(t: Tensor) -> tuple[Tensor, Tensor]:
        at = alpha_bar[t.long()]
        return at.sqrt(), (1 - at).sqrt()

    return Curves(path, lambda q: (q * timesteps).floor() + 1, discrete=True)


def linear(timesteps: int, device: torch.device | None) -> Curves:
    """The chain of :func:`linear_betas`."""
    return _discrete(linear_betas, timesteps, device)


def cosine(timesteps: int, device: torch.device | None) -> Curves:
    """The chain of :func:`cosine_betas`."""
    return _discrete(cosine_betas, timesteps, device)


def sigmoid(timesteps: int, device: torch.device | None, *, start: float, end: float, tau: float) -> Curves:
    """``alpha^2 = (S(end) - S(start + u (end - start))) / (S(end) - S(start))``, where ``S(x) = 1 / (1 + exp(-x / tau))``.

    Jabri et al. (arXiv 2212.11972); Chen (arXiv 2301.10972, section 2.1). t is uniform; u = t/T; alpha^2 is at least 1e-9.
    """
    low, high = (1 / (1 + math.exp(-at / tau)) for at in (start, end))

    def path(t: Tensor) -> tuple[Tensor, Tensor]:
        falling = high - torch.sigmoid((start + t / timesteps * (end - start)) / tau)
        alpha_squared = (falling / (high - low)).clamp(min=1e-9, max=1)
        return alpha_squared.sqrt(), (1 - alpha_squared).sqrt()

    return Curves(path, _uniform(timesteps))


def laplace(timesteps: int, device: torch.device | None, *, mu: float, b: float) -> Curves:
    """Log signal-to-noise ratios from a Laplace distribution of mean mu and scale b (Hang et al., arXiv 2407.03297, table 1).

    ``lambda(q) = mu - b sgn(1/2 - q) log(1 - 2|q - 1/2|)`` sets the times of training. The path is the continuous cosine
    schedule's, ``theta = pi/2 u`` with ``u = t / (T + 1)``. So sampling covers the whole path evenly, although training draws
    most times from its middle.
    """
    step = math.pi / 2 / (timesteps + 1)  # in theta, per unit of t

    def quantile(q: Tensor) -> Tensor:
        log_snr = mu - b * torch.sign(0.5 - q) * torch.log1p(-2 * (q - 0.5).abs())
        return (torch.atan(torch.exp(-log_snr / 2)) / step).clamp(1, timesteps)

    return Curves(lambda t: ((t * step).cos(), (t * step).sin()), quantile)


def edm(
    timesteps: int, device: torch.device | None, *, p_mean: float, p_std: float, sigma_min: float, sigma_max: float, rho: float
) -> Curves:
    """Noise levels s: in training ``ln s ~ N(p_mean, p_std^2)``, and for evenly spaced t EDM's spacing (arXiv 2206.00364).

    This spacing is EDM's equation 5: ``s^(1/rho)`` runs evenly from sigma_min (t = 1) to sigma_max (t = T). In place of
    EDM's input scaling the image is scaled to preserve variance, ``alpha = 1/sqrt(1 + s^2)``. Levels that the log-normal
    distribution draws outside the range are clipped to it.
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def path(t: Tensor) -> tuple[Tensor, Tensor]:
        s = (low + (t - 1) / (timesteps - 1) * (high - low)).pow(rho)
        alpha: Tensor = (1 + s.square()).rsqrt()
        return alpha, s * alpha

    def quantile(q: Tensor) -> Tensor:
        s = torch.exp(p_mean + p_std * torch.special.ndtri(q)).clamp(sigma_min, sigma_max)
        share: Tensor = (s.pow(1 / rho) - low) / (high - low)
        return 1 + share * (timesteps - 1)

    return Curves(path, quantile)


def flow_uniform(timesteps: int, device: torch.device | None) -> Curves:
    """Rectified flow: ``x_u = (1 - u) x_0 + u eps``, u uniform (Liu et al., arXiv 2209.03003; Lipman et al., arXiv 2210.02747).

    ``u = t / (T + 1)`` stops one step short of pure noise, where predicting the noise would not determine x_0.
    """
    return _flow(timesteps, lambda w: w, _uniform(timesteps))


def flow_logit_normal(timesteps: int, device: torch.device | None, *, mean: float, std: float) -> Curves:
    """Rectified flow trained at ``logit(u) ~ N(mean, std^2)`` (Esser et al., arXiv 2403.03206, equation 19)."""

    def quantile(q: Tensor) -> Tensor:
        return (torch.sigmoid(mean + std * torch.special.ndtri(q)) * (timesteps + 1)).clamp(1, timesteps)

    return _flow(timesteps, lambda w: w, quantile)


def flow_shifted(timesteps: int, device: torch.device | None, *, shift: float) -> Curves:
    """Rectified flow with times shifted towards noise: ``u = shift w / (1 + (shift - 1) w)``, ``w = t / (T + 1)``.

    Esser et al. (arXiv 2403.03206, equation 23), in training and sampling. Larger images need a larger shift.
    """
    return _flow(timesteps, lambda w: shift * w / (1 + (shift - 1) * w), _uniform(timesteps))


# name -> (timesteps, device, parameters of config/trial/noise.py) -> curves
SCHEDULES: dict[str, Callable[..., Curves]] = {
    "linear": linear,
    "cosine": cosine,
    "sigmoid": sigmoid,
    "laplace": laplace,
    "edm": edm,
    "flow-uniform": flow_uniform,
    "flow-logit-normal": flow_logit_normal,
    "flow-shifted": flow_shifted,
}
