"""Samplers: from noise to images, one function each.

A sampler sees the model as a *denoiser* ``(x_t, t) -> (x_0, eps)`` and receives every random number from outside, so that
sample i has the same noise whatever the batch size. Shapes: B samples, C, H, W; images in [-1, 1]; t in 1..T.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Literal, Protocol

import torch
from torch import Tensor

from umd_bench.config.errors import FieldError, one_of
from umd_bench.config.randomness import derive_seed
from umd_bench.config.trial import GenerateStage
from umd_bench.engine.families import Sampled
from umd_bench.engine.schedules import NoiseSchedule

Denoiser = Callable[[Tensor, int], tuple[Tensor, Tensor]]


class Sampler(Protocol):
    """Turns noise into images.

    ``noise`` yields standard normal [B, C, H, W] tensors: the first is the start, each later one a step's.
    """

    def __call__(
        self, denoise: Denoiser, noise: Iterator[Tensor], schedule: NoiseSchedule, config: GenerateStage
    ) -> Tensor: ...


def even_times(timesteps: int, steps: int) -> list[int]:
    """``steps`` different times from T downwards, evenly spaced, and the last once more: [steps + 1].

    Where ``steps`` divides T they are the official ones; where it does not, these are still ``steps`` different times.
    """
    return [timesteps - i * timesteps // steps for i in range(steps)] + [1]


def official_times(timesteps: int, steps: int) -> list[int]:
    """The official ``arange(T - 1, 0, -T // steps) + [0]`` (schedule indices, one below t), the last repeated: [steps + 1].

    The floor makes strides larger where ``steps`` does not divide T, so its tail stands still: 62 steps of 1000 have 59
    different times and index 0 three times.
    """
    indices = [*range(timesteps - 1, 0, -timesteps // steps), 0]
    return [indices[min(i, len(indices) - 1)] + 1 for i in range(steps + 1)]


def ddim(
    denoise: Denoiser,
    noise: Iterator[Tensor],
    schedule: NoiseSchedule,
    config: GenerateStage,
    *,
    times: Callable[[int, int], list[int]],
    head: Literal["eps", "x_0"] = "eps",
) -> Tensor:
    """DDIM (Song et al., arXiv 2010.02502, equations 12 and 16): t = T to 1, then one call more for the estimate of x_0.

    ``x_prev = sqrt(ab_prev) x_0 + sqrt(1 - ab_prev - sigma^2) eps + sigma z``,
    ``sigma = eta sqrt((1 - ab_prev) / (1 - ab)) sqrt(1 - ab / ab_prev)``. With ``config.clip`` x_0 is clipped to [-1, 1] and
    eps recomputed from it. ``head`` says which of the model's predictions is believed; the other follows from it.
    """
    x = next(noise)
    sequence = times(schedule.timesteps, config.steps)
    for t, t_prev in pairwise(sequence):
        x_0, eps = _estimate(denoise, x, t, schedule, clip=config.clip, head=head)
        ab, ab_prev = schedule.alpha_bar[t].item(), schedule.alpha_bar[t_prev].item()
        sigma = config.eta * ((1 - ab_prev) / (1 - ab)) ** 0.5 * (1 - ab / ab_prev) ** 0.5
        x = ab_prev**0.5 * x_0 + max(1 - ab_prev - sigma**2, 0.0) ** 0.5 * eps
        if sigma:
            x = x + sigma * next(noise)
    x_0, _ = _estimate(denoise, x, sequence[-1], schedule, clip=config.clip, head=head)
    return x_0


SAMPLERS: dict[str, Sampler] = {
    "ddim": partial(ddim, times=even_times),
    "ddim-official": partial(ddim, times=official_times),
    "ddim-x0": partial(ddim, times=even_times, head="x_0"),
}


@torch.inference_mode()
def generate(
    model: Sampled,
    schedule: NoiseSchedule,
    config: GenerateStage,
    *,
    label: Tensor | None,
    indices: Sequence[int],
    seed: int,
) -> Tensor:
    """Samples ``indices`` of the set that ``seed`` names: float32 [B, C, H, W], in [-1, 1] where ``config.clip``.

    ``label`` [B] int64 or None; guidance ``config.cfg_scale`` needs a model with classes and labels. Sample i's noise comes
    from ``derive_seed(seed, "sample", i)``, drawn on the CPU: it is the same in any batch and on any device (what the model
    makes of it agrees to rounding). Raises :class:`FieldError` for an unknown sampler and for guidance without labels.
    """
    if config.sampler not in SAMPLERS:
        raise FieldError("stages.generate.sampler", config.sampler, one_of(SAMPLERS))
    if config.steps > schedule.timesteps:
        raise FieldError("stages.generate.steps", config.steps, f"expected 1..{schedule.timesteps}")
    if config.cfg_scale != 1 and (label is None or model.label_embed is None):
        raise FieldError("stages.generate.cfg_scale", config.cfg_scale, "expected 1, since there are no labels to guide by")
    device = model.pos_embed.device
    side = model.side * model.patch
    noise = sample_noise(seed, indices, (model.channels, side, side), device)
    denoise = partial(_guided, model, label, config.cfg_scale)
    return SAMPLERS[config.sampler](denoise, noise, schedule, config)


def sample_noise(seed: int, indices: Sequence[int], shape: tuple[int, int, int], device: torch.device) -> Iterator[Tensor]:
    """Standard normal [B, C, H, W] tensors without end; row i comes from the generator of sample ``indices[i]`` alone."""
    generators = [torch.Generator().manual_seed(derive_seed(seed, "sample", index)) for index in indices]
    while True:
        draw = torch.empty(len(generators), *shape)
        for row, generator in zip(draw, generators, strict=True):
            row.normal_(generator=generator)
        yield draw.to(device)


def _guided(model: Sampled, label: Tensor | None, cfg_scale: float, x_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
    """``u + s (c - u)`` on both predictions, u with the null label; one pass of 2B rows, or of B without guidance."""
    if cfg_scale == 1:
        out = model(x_t, torch.full((len(x_t) if label is not None else 1,), t, device=x_t.device), label=label)
        return out.x_0, out.eps
    assert label is not None
    assert model.label_embed is not None
    labels = torch.cat([label, torch.full_like(label, model.label_embed.null)])
    out = model(x_t.repeat(2, 1, 1, 1), torch.full((2 * len(x_t),), t, device=x_t.device), label=labels)
    conditional, unconditional = torch.cat([out.x_0, out.eps], dim=1).chunk(2)
    x_0, eps = (unconditional + cfg_scale * (conditional - unconditional)).chunk(2, dim=1)
    return x_0, eps


def _estimate(
    denoise: Denoiser, x_t: Tensor, t: int, schedule: NoiseSchedule, *, clip: bool, head: Literal["eps", "x_0"]
) -> tuple[Tensor, Tensor]:
    """x_0 and eps that agree with each other and with x_t: ``x_t = sqrt(ab) x_0 + sqrt(1 - ab) eps``."""
    ab = schedule.alpha_bar[t].item()
    x_0, eps = denoise(x_t, t)
    if head == "eps":
        x_0 = (x_t - (1 - ab) ** 0.5 * eps) / ab**0.5
    if clip:
        x_0 = x_0.clamp(-1, 1)
    if clip or head == "x_0":
        eps = (x_t - ab**0.5 * x_0) / (1 - ab) ** 0.5
    return x_0, eps
