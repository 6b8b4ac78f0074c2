"""Noise schedules: two have official tables; for every schedule its values at both ends, its path and its training times."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from engine.golden_files import arrays, images, worst
from torch import Tensor

from umd_bench.config.trial.noise import SCHEDULE_PARAMETERS, NoiseConfig
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.diffusion.schedules import SCHEDULES

GOLDEN = arrays("schedules")
T = 1000
# alpha and sigma at t = 1 and at t = T = 1000, computed from each paper's formula without this code.
ENDS = {
    "linear": ((math.sqrt(1 - 1e-4), 1e-2), (6.353e-3, 0.99998)),
    "cosine": ((0.9999794, 6.421e-3), (4.93e-5, 1.0)),
    "sigmoid": ((0.99985, 0.017329), (3.16228e-5, 1.0)),
    "laplace": ((math.cos(math.pi / 2002), math.sin(math.pi / 2002)), (math.sin(math.pi / 2002), math.cos(math.pi / 2002))),
    "edm": ((1 / math.hypot(1, 0.002), 0.002 / math.hypot(1, 0.002)), (1 / math.hypot(1, 80), 80 / math.hypot(1, 80))),
    "flow-uniform": ((1000 / 1001, 1 / 1001), (1 / 1001, 1000 / 1001)),
    "flow-logit-normal": ((1000 / 1001, 1 / 1001), (1 / 1001, 1000 / 1001)),
    "flow-shifted": ((1 - 3 / 1003, 3 / 1003), (1 - 3000 / 3001, 3000 / 3001)),
}


def log_snr(process: NoiseProcess, t: Tensor) -> Tensor:
    alpha, sigma = process.path(t)
    return 2 * (alpha / sigma).log()


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_tables_and_noising_are_the_official_ones(name: str) -> None:
    process = NoiseProcess(NoiseConfig(schedule=name))
    alpha, sigma = process.path(torch.arange(T + 1))
    np.testing.assert_allclose(alpha.square()[1:], GOLDEN[f"{name}/alphas_cumprod"], rtol=1e-12)
    np.testing.assert_allclose(alpha.square()[:-1], GOLDEN[f"{name}/alphas_cumprod_prev"], rtol=1e-12)
    np.testing.assert_allclose(sigma.square()[1:], 1 - GOLDEN[f"{name}/alphas_cumprod"], rtol=1e-12)
    t = torch.from_numpy(GOLDEN["q/t"][:, 0]).long() + 1
    x_t = process.q_sample(images(GOLDEN["q/x_start"]), t, images(GOLDEN["q/noise"]))
    assert worst(x_t, images(GOLDEN[f"q/{name}/x_t"])) < 1e-6


def test_every_schedule_has_its_parameters_in_the_configuration() -> None:
    assert SCHEDULES.keys() == SCHEDULE_PARAMETERS.keys() == ENDS.keys()


def test_the_configuration_knows_which_schedules_have_whole_times_only() -> None:
    built = {name: NoiseProcess(NoiseConfig(schedule=name)).discrete for name in SCHEDULES}
    assert {name: NoiseConfig(schedule=name).discrete for name in SCHEDULES} == built


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_has_its_papers_values_at_both_ends(name: str) -> None:
    process = NoiseProcess(NoiseConfig(schedule=name))
    for t, (alpha, sigma) in zip((1, T), ENDS[name], strict=True):
        assert process.at(t) == pytest.approx((alpha, sigma), rel=1e-3)
    assert process.at(0) == (1, 0)


@pytest.mark.parametrize("timesteps", [2, 50, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_signal_to_noise_ratio_falls_with_every_step_and_the_path_is_a_circle_or_a_line(name: str, timesteps: int) -> None:
    process = NoiseProcess(NoiseConfig(schedule=name, timesteps=timesteps))
    t = torch.linspace(1, timesteps, timesteps if process.discrete else 7919, dtype=torch.float64)
    alpha, sigma = process.path(t)
    assert alpha.dtype == sigma.dtype == torch.float64
    assert (log_snr(process, t).diff() < 0).all()
    assert (alpha > 0).all()
    assert (sigma > 0).all()
    whole = alpha + sigma if process.straight else alpha.square() + sigma.square()
    torch.testing.assert_close(whole, torch.ones_like(whole), rtol=0, atol=1e-12)
    angles = [process.theta(float(at)) for at in t[:: max(1, len(t) // 50)]]
    assert angles == sorted(angles)


@pytest.mark.parametrize("name", SCHEDULES)
def test_time_zero_leaves_the_image_bit_for_bit(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 1, 8, 8, generator=generator)
    x_t = NoiseProcess(NoiseConfig(schedule=name)).q_sample(x_0, torch.tensor([0, 1, 0]), eps)
    assert torch.equal(x_t[0], x_0[0])
    assert torch.equal(x_t[2], x_0[2])
    assert not torch.equal(x_t[1], x_0[1])


@pytest.mark.parametrize("name", SCHEDULES)
def test_trained_times_rise_with_their_quantile_and_stay_in_range(name: str) -> None:
    process = NoiseProcess(NoiseConfig(schedule=name, timesteps=50))
    t = process.trained_times(torch.linspace(0, 1, 10001, dtype=torch.float64)[:-1])
    assert (t.diff() >= 0).all()
    assert t.min() >= 1
    assert t.max() <= 50
    assert not process.discrete or torch.equal(t, t.round())


def trained(name: str, n: int = 100_000, **parameters: float) -> tuple[NoiseProcess, Tensor]:
    """Times at n evenly spaced quantiles: the training distribution without randomness."""
    process = NoiseProcess(NoiseConfig(schedule=name, parameters=parameters))
    return process, process.trained_times((torch.arange(n, dtype=torch.float64) + 0.5) / n)


def test_laplace_draws_training_log_snrs_with_its_mean_and_scale() -> None:
    """A Laplace distribution has the median mu, the mean absolute deviation b and the variance 2 b^2."""
    process, t = trained("laplace", mu=0.7, b=0.4)
    found = log_snr(process, t)
    assert found.median().item() == pytest.approx(0.7, abs=1e-3)
    assert (found - 0.7).abs().mean().item() == pytest.approx(0.4, rel=1e-3)
    assert found.var().item() == pytest.approx(2 * 0.4**2, rel=1e-2)


def test_edm_draws_log_normal_training_noise_levels_and_takes_karras_steps() -> None:
    process, t = trained("edm")
    alpha, sigma = process.path(t)
    levels = (sigma / alpha).log()
    assert levels.mean().item() == pytest.approx(-1.2, abs=1e-3)
    assert levels.std().item() == pytest.approx(1.2, rel=1e-3)
    N = 18  # the paper's equation 5 with its 18 steps for CIFAR-10
    i = np.arange(N)
    karras = (80 ** (1 / 7) + i / (N - 1) * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    ours = [sigma / alpha for alpha, sigma in map(process.at, process.times(N - 1))]
    np.testing.assert_allclose(ours, karras, rtol=1e-9)


def test_logit_normal_draws_training_times_with_its_mean_and_deviation() -> None:
    process, t = trained("flow-logit-normal", mean=-0.5, std=0.8)
    _, u = process.path(t)
    assert u.logit().mean().item() == pytest.approx(-0.5, abs=1e-3)
    assert u.logit().std().item() == pytest.approx(0.8, rel=1e-3)


def test_shifting_by_one_is_the_uniform_flow_and_by_three_moves_the_middle_to_three_quarters() -> None:
    t = torch.linspace(1, T, 77, dtype=torch.float64)
    uniform = NoiseProcess(NoiseConfig(schedule="flow-uniform"))
    unshifted = NoiseProcess(NoiseConfig(schedule="flow-shifted", parameters={"shift": 1}))
    torch.testing.assert_close(uniform.path(t), unshifted.path(t), rtol=1e-12, atol=1e-12)
    assert NoiseProcess(NoiseConfig(schedule="flow-shifted")).at(1001 / 2)[1] == pytest.approx(0.75)
    _, times = trained("flow-uniform")
    assert times.mean().item() == pytest.approx((1 + T) / 2, rel=1e-3)


def test_sigmoid_falls_as_its_formula_does() -> None:
    S = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    process = NoiseProcess(NoiseConfig(schedule="sigmoid", parameters={"start": -2, "end": 4, "tau": 0.5}))
    expected = (S(4 / 0.5) - S((0.3 * 6 - 2) / 0.5)) / (S(4 / 0.5) - S(-2 / 0.5))
    assert process.at(300)[0] ** 2 == pytest.approx(expected, rel=1e-12)
