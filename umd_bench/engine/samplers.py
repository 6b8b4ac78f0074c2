"""Samplers: from noise to images, one function each.

A sampler receives the model as a *denoiser*, a function from (x_t, t) to the model's two predictions. It also receives all
random numbers, so that sample i has the same noise at any batch size. All samplers go from t = T to 1 in ``config.steps`` steps
and return the x_0 that one more model call estimates. Shapes: B batch, C channels, H, W; images in [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, NamedTuple, Protocol

import torch
from torch import Tensor

from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.generate_stage import GenerateStage, check_sampler
from umd_bench.data.batches.device_rows import to_device
from umd_bench.engine.diffusion.noise_process import NoiseProcess, velocity
from umd_bench.engine.families import Sampled

# (x_t, t) -> the predictions of x_0 and of the noise process's target
Denoiser = Callable[[Tensor, float], tuple[Tensor, Tensor]]


class Draw(Protocol):
    """Turns noise into images [B, C, H, W].

    ``noise`` yields standard normal [B, C, H, W] tensors: first the initial x_T, then one for each step that adds noise.
    """

    def __call__(self, denoise: Denoiser, noise: Iterator[Tensor], process: NoiseProcess, config: GenerateStage) -> Tensor: ...


class Sampler(NamedTuple):
    """A row of :data:`SAMPLERS`: the function, and how often it calls the model in each step."""

    draw: Draw
    calls_per_step: int = 1

    def calls(self, steps: int) -> int:
        """Model calls per sample, including the last estimate. Guidance doubles the rows of a call, not the calls."""
        return self.calls_per_step * steps + 1


def official_times(process: NoiseProcess, steps: int) -> list[float]:
    """The times of the official indices ``arange(T - 1, 0, -T // steps) + [0]``: [steps + 1].

    A time is its schedule index plus 1. If ``steps`` does not divide T, the floor makes the strides larger and the list of
    indices shorter: 62 steps of 1000 have 59 indices before index 0. Index 0 is then repeated to fill the list.
    """
    T = process.timesteps
    indices = [*range(T - 1, 0, -T // steps), 0]
    return [indices[min(i, len(indices) - 1)] + 1 for i in range(steps + 1)]


def ddim(
    denoise: Denoiser,
    noise: Iterator[Tensor],
    process: NoiseProcess,
    config: GenerateStage,
    *,
    times: Callable[[NoiseProcess, int], list[float]] = NoiseProcess.times,
    head: Literal["target", "x_0"] = "target",
) -> Tensor:
    """DDIM (Song et al., arXiv 2010.02502, equations 12 and 16), first order; ``eta`` 0 is deterministic, 1 ancestral.

    ``x_prev = alpha_prev x_0 + sqrt(sigma_prev^2 - s^2) eps + s z``,
    ``s = eta sigma_prev / sigma sqrt(sigma^2 - (alpha / alpha_prev)^2 sigma_prev^2) / sigma``, which for variance-preserving
    processes is the paper's. ``head`` says which of the model's two predictions is used; the other one is computed from it.
    """
    eta = 1.0 if config.eta is None else config.eta
    x = next(noise)
    sequence = times(process, config.steps)
    for t, t_prev in pairwise(sequence):
        x_0, eps = _estimate(denoise, x, t, process, clip=config.clip, head=head)
        (alpha, sigma), (alpha_prev, sigma_prev) = process.at(t), process.at(t_prev)
        added = max(sigma**2 - (alpha / alpha_prev * sigma_prev) ** 2, 0.0)
        s = eta * sigma_prev / sigma * added**0.5
        x = alpha_prev * x_0 + max(sigma_prev**2 - s**2, 0.0) ** 0.5 * eps
        if s:
            x = x + s * next(noise)
    x_0, _ = _estimate(denoise, x, sequence[-1], process, clip=config.clip, head=head)
    return x_0


def euler(denoise: Denoiser, noise: Iterator[Tensor], process: NoiseProcess, config: GenerateStage) -> Tensor:
    """Euler's method on the probability flow ``dx/dtheta = v(x, theta)``, first order.

    On a straight path theta is the flow's time (Liu et al., arXiv 2209.03003). Otherwise it is the angle whose tangent is EDM's
    noise level sigma/alpha. The angle is used because it and the velocity are bounded, while the noise level grows without
    limit as alpha goes to 0.
    """
    x = next(noise)
    sequence = process.times(config.steps)
    for t, t_prev in pairwise(sequence):
        x = x + (process.theta(t_prev) - process.theta(t)) * _velocity(denoise, x, t, process, clip=config.clip)
    return _estimate(denoise, x, sequence[-1], process, clip=config.clip)[0]


def heun(denoise: Denoiser, noise: Iterator[Tensor], process: NoiseProcess, config: GenerateStage) -> Tensor:
    """Heun's method, second order: EDM's deterministic sampler (Karras et al., arXiv 2206.00364, algorithm 1 with no churn).

    The variable theta is as in :func:`euler`. Each step calls the model twice.
    """
    x = next(noise)
    sequence = process.times(config.steps)
    for t, t_prev in pairwise(sequence):
        d_theta = process.theta(t_prev) - process.theta(t)
        v = _velocity(denoise, x, t, process, clip=config.clip)
        v_prev = _velocity(denoise, x + d_theta * v, t_prev, process, clip=config.clip)
        x = x + d_theta * (v + v_prev) / 2
    return _estimate(denoise, x, sequence[-1], process, clip=config.clip)[0]


def dpmpp_2m(denoise: Denoiser, noise: Iterator[Tensor], process: NoiseProcess, config: GenerateStage) -> Tensor:
    """DPM-Solver++(2M), second order, one model call per step (Lu et al., arXiv 2211.01095, algorithm 2).

    With ``l = log(alpha / sigma)``, ``h = l_prev - l`` and ``r = h_before / h``, where ``before`` is the preceding step:
    ``D = x_0 + (x_0 - x_0_before) / 2r``; ``x_prev = sigma_prev / sigma x - alpha_prev (exp(-h) - 1) D``.
    The first step is DDIM's.
    """
    x = next(noise)
    sequence = process.times(config.steps)
    x_0_before: Tensor | None = None
    h_before = 0.0
    for t, t_prev in pairwise(sequence):
        x_0, _ = _estimate(denoise, x, t, process, clip=config.clip)
        (alpha, sigma), (alpha_prev, sigma_prev) = process.at(t), process.at(t_prev)
        h = math.log(alpha_prev / sigma_prev) - math.log(alpha / sigma)
        D = x_0 if x_0_before is None else x_0 + (x_0 - x_0_before) * (h / (2 * h_before))
        x = sigma_prev / sigma * x - alpha_prev * math.expm1(-h) * D
        x_0_before, h_before = x_0, h
    return _estimate(denoise, x, sequence[-1], process, clip=config.clip)[0]


# config/trial/generate_stage.py lists the names, and accepts eta for names that begin with ddim.
SAMPLERS: dict[str, Sampler] = {
    "ddim": Sampler(ddim),
    "ddim-official": Sampler(partial(ddim, times=official_times)),
    "ddim-x0": Sampler(partial(ddim, head="x_0")),
    "dpmpp-2m": Sampler(dpmpp_2m),
    "euler": Sampler(euler),
    "heun": Sampler(heun, calls_per_step=2),
}


@torch.inference_mode()
def generate(
    model: Sampled,
    process: NoiseProcess,
    config: GenerateStage,
    *,
    label: Tensor | None,
    indices: Sequence[int],
    seed: int,
) -> Tensor:
    """The samples with the numbers ``indices`` in the set of ``seed``: float32 [B, C, H, W], in [-1, 1] if ``config.clip``.

    ``label`` [B] int64 or None; guidance ``config.cfg_scale`` needs a model with classes and labels. Sample i's noise is drawn
    on the CPU from ``derive_seed(seed, "sample", i)``, so it is the same in any batch and on any device, and the samples agree
    up to rounding. Raises as :func:`check_sampler`.
    """
    check_sampler(config, process, guidable=label is not None and model.label_embed is not None)
    device = model.pos_embed.device
    side = model.side * model.patch
    noise = sample_noise(seed, indices, (model.channels, side, side), device)
    return SAMPLERS[config.sampler].draw(partial(_guided, model, label, config), noise, process, config)


def sample_noise(seed: int, indices: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> Iterator[Tensor]:
    """Standard normal [B, C, H, W] tensors without end; row i comes only from the generator of sample ``indices[i]``."""
    generators = [torch.Generator().manual_seed(derive_seed(seed, "sample", index)) for index in indices]
    while True:
        draw = torch.empty(len(generators), *shape)
        for row, generator in zip(draw, generators, strict=True):
            row.normal_(generator=generator)
        yield to_device(draw, device)


def _guided(model: Sampled, label: Tensor | None, config: GenerateStage, x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """Both predictions with guidance, ``u + s (c - u)``: c is computed with the label, u with the null label, s is the scale.

    The model runs once, on 2B rows with guidance and on B rows without. Outside ``config.cfg_interval`` there is no guidance
    (Kynkäänniemi et al., arXiv 2404.07724). The model computes in
    ``config.precision``; its predictions and everything computed from them are float32.
    """
    low, high = config.cfg_interval or (-math.inf, math.inf)
    if config.cfg_scale == 1 or not low <= t <= high:
        return _halves(_predictions(model, label, config, x_t, t))
    assert label is not None
    assert model.label_embed is not None
    labels = torch.cat([label, torch.full_like(label, model.label_embed.null)])
    conditional, unconditional = _predictions(model, labels, config, x_t.repeat(2, 1, 1, 1), t).chunk(2)
    return _halves(unconditional + config.cfg_scale * (conditional - unconditional))


def _predictions(model: Sampled, label: Tensor | None, config: GenerateStage, x_t: Tensor, t: float) -> Tensor:
    """x_0 and the target in one float32 [B, 2C, H, W]. A copy, since a compiled model's next call may overwrite its outputs."""
    with _autocast(x_t, config):
        out = model(x_t, torch.full((len(x_t) if label is not None else 1,), t, device=x_t.device), label=label)
    return torch.cat([out.x_0.float(), out.target.float()], dim=1)


def _halves(both: Tensor) -> tuple[Tensor, Tensor]:
    x_0, target = both.chunk(2, dim=1)
    return x_0, target


def _autocast(x_t: Tensor, config: GenerateStage) -> torch.autocast:
    return torch.autocast(x_t.device.type, dtype=torch.bfloat16, enabled=config.precision == "bf16")


def _estimate(
    denoise: Denoiser, x_t: Tensor, t: float, process: NoiseProcess, *, clip: bool, head: Literal["target", "x_0"] = "target"
) -> tuple[Tensor, Tensor]:
    """x_0 and eps, consistent with each other and with x_t; with ``clip``, x_0 is clipped to [-1, 1] and eps follows it."""
    x_0, target = denoise(x_t, t)
    if head == "target":
        x_0, eps = process.solve(x_t, t, target)
    if clip:
        x_0 = x_0.clamp(-1, 1)
    if clip or head == "x_0":
        alpha, sigma = process.at(t)
        eps = (x_t - alpha * x_0) / sigma
    return x_0, eps


def _velocity(denoise: Denoiser, x_t: Tensor, t: float, process: NoiseProcess, *, clip: bool) -> Tensor:
    """dx/dtheta along the probability flow."""
    x_0, eps = _estimate(denoise, x_t, t, process, clip=clip)
    c, d = velocity(*process.at(t), process.straight)
    return c * x_0 + d * eps
