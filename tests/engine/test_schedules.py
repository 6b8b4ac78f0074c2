"""Noise schedules are the official tables, one index later, with a clean image at t = 0."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_files import arrays, images, worst

from umd_bench.config.errors import FieldError
from umd_bench.config.trial import NoiseConfig
from umd_bench.engine.schedules import SCHEDULES, NoiseSchedule

GOLDEN = arrays("schedules")


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_tables_and_noising_are_the_official_ones(name: str) -> None:
    schedule = NoiseSchedule(NoiseConfig(schedule=name))
    np.testing.assert_allclose(schedule.alpha_bar[1:].numpy(), GOLDEN[f"{name}/alphas_cumprod"], rtol=1e-12)
    np.testing.assert_allclose(schedule.alpha_bar[:-1].numpy(), GOLDEN[f"{name}/alphas_cumprod_prev"], rtol=1e-12)
    t = torch.from_numpy(GOLDEN["q/t"][:, 0]).long() + 1
    x_t = schedule.q_sample(images(GOLDEN["q/x_start"]), t, images(GOLDEN["q/noise"]))
    assert worst(x_t, images(GOLDEN[f"q/{name}/x_t"])) < 1e-6


@pytest.mark.parametrize("timesteps", [2, 50, 1000])
@pytest.mark.parametrize("name", sorted(SCHEDULES))
def test_every_schedule_falls_from_one_and_stays_positive(name: str, timesteps: int) -> None:
    alpha_bar = NoiseSchedule(NoiseConfig(schedule=name, timesteps=timesteps)).alpha_bar
    assert alpha_bar.dtype == torch.float64
    assert alpha_bar.shape == (timesteps + 1,)
    assert alpha_bar[0] == 1
    assert (alpha_bar.diff() < 0).all()
    assert (alpha_bar > 0).all()


def test_time_zero_leaves_the_image_bit_for_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 1, 8, 8, generator=generator)
    x_t = NoiseSchedule(NoiseConfig()).q_sample(x_0, torch.tensor([0, 1, 0]), eps)
    assert torch.equal(x_t[0], x_0[0])
    assert torch.equal(x_t[2], x_0[2])
    assert not torch.equal(x_t[1], x_0[1])


def test_an_unknown_schedule_is_refused_with_the_valid_names() -> None:
    with pytest.raises(FieldError, match=r"noise\.schedule = 'cosin' is not accepted: expected one of cosine, linear"):
        NoiseSchedule(NoiseConfig(schedule="cosin"))
