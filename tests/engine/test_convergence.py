"""On Gaussian data, whose score is known, the moments of samples converge to the exact moments at the order of the sampler.

With data N(mu, s^2) the best x_0 is linear in x_t, so a sample is linear in its noise: ``c + A x_T + sum_k B_k z_k``.
Each row of one batch sets one draw to 1 and the others to 0, which gives the coefficients. So the moments of the samples are
computed without random errors, and no tolerance has to allow for them.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.engine.diffusion.noise_process import PREDICTIONS, NoiseProcess
from umd_bench.engine.diffusion.schedules import SCHEDULES
from umd_bench.engine.samplers import SAMPLERS, Denoiser

MU, S = 0.3, 0.5
STEPS = (80, 160, 320, 640)
ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp-2m": 2}
CONTINUOUS = [name for name in SCHEDULES if not NoiseProcess(NoiseConfig(schedule=name)).discrete]


def best(process: NoiseProcess) -> Denoiser:
    """The posterior mean ``mu + alpha s^2 / (alpha^2 s^2 + sigma^2) (x_t - alpha mu)``, and the target that goes with it."""

    def denoise(x_t: Tensor, t: float) -> tuple[Tensor, Tensor]:
        alpha, sigma = process.at(t)
        x_0 = MU + alpha * S**2 / (alpha**2 * S**2 + sigma**2) * (x_t - alpha * MU)
        times = torch.full((len(x_t),), t, dtype=torch.float64)
        return x_0, process.target(x_0, times, (x_t - alpha * x_0) / sigma)

    return denoise


def moments(sampler: str, process: NoiseProcess, steps: int, **fields: object) -> tuple[float, float]:
    """Mean and standard deviation of the samples that start from the true x_T ~ N(alpha mu, alpha^2 s^2 + sigma^2)."""
    stage = GenerateStage.model_validate(
        {"parent": "p", "n": 2, "steps": steps, "sampler": sampler, "clip": False, "extractor": "none", **fields}
    )
    alpha, sigma = process.at(process.timesteps)
    rows = steps + 2  # one row without noise, one for x_T, and one for the draw of each step

    def draws() -> object:
        for k in range(steps + 1):
            unit = torch.zeros(rows, 1, 1, 1, dtype=torch.float64)
            unit[k + 1] = 1
            yield unit * math.sqrt(alpha**2 * S**2 + sigma**2) + alpha * MU if k == 0 else unit

    x = SAMPLERS[sampler].draw(best(process), iter(draws()), process, stage).flatten()  # type: ignore[call-overload]
    return x[0].item(), (x[1:] - x[0]).square().sum().sqrt().item()


def exact(process: NoiseProcess) -> tuple[float, float]:
    """The limit of infinitely many steps: (x_t - alpha mu) / sd(x_t) stays constant down to t = 1, where x_0 is estimated."""
    alpha, sigma = process.at(1)
    return MU, alpha * S**2 / math.sqrt(alpha**2 * S**2 + sigma**2)


def order(errors: list[float]) -> float:
    """The negative slope of log(error) over log(steps), at STEPS."""
    return float(-np.polyfit(np.log(STEPS), np.log(errors), 1)[0])


@pytest.mark.slow
@pytest.mark.parametrize("schedule", CONTINUOUS)
@pytest.mark.parametrize("sampler", ORDERS)
def test_the_deterministic_samplers_converge_at_their_order(sampler: str, schedule: str) -> None:
    process = NoiseProcess(NoiseConfig(schedule=schedule))
    fields = {"eta": 0.0} if sampler == "ddim" else {}
    errors = []
    for steps in STEPS:
        (mean, sd), (true_mean, true_sd) = moments(sampler, process, steps, **fields), exact(process)
        errors.append(max(abs(sd - true_sd), abs(mean - true_mean)))
    assert order(errors) > ORDERS[sampler] - 0.25, errors
    assert errors[-1] < {1: 1e-2, 2: 3e-4}[ORDERS[sampler]], errors


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_limit_has_the_moments_of_the_data(schedule: str) -> None:
    """The last estimate, at t = 1, shrinks the standard deviation by the little noise that is left there."""
    mean, sd = exact(NoiseProcess(NoiseConfig(schedule=schedule)))
    assert (mean, sd) == pytest.approx((MU, S), rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("schedule", CONTINUOUS)
@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ddim_with_noise_converges_to_the_data_too(eta: float, schedule: str) -> None:
    """The noise of every step makes a sample forget its start, so the limit is E[x_0 | x_1] for the true x_1."""
    process = NoiseProcess(NoiseConfig(schedule=schedule))
    errors = [abs(moments("ddim", process, steps, eta=eta)[1] - exact(process)[1]) for steps in STEPS]
    assert order(errors) > 0.75, errors
    assert errors[-1] < 1e-2


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("sampler", ORDERS)
def test_all_samplers_agree_with_the_data_under_the_papers_schedules(sampler: str, schedule: str) -> None:
    process = NoiseProcess(NoiseConfig(schedule=schedule))
    fields = {"eta": 0.0} if sampler == "ddim" else {}
    errors = [abs(moments(sampler, process, steps, **fields)[1] - exact(process)[1]) for steps in (50, 100, 500)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-2


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("sampler", ORDERS)
def test_samples_do_not_depend_on_the_prediction_target(sampler: str, prediction: str) -> None:
    given, paper = (NoiseProcess(NoiseConfig(schedule="sigmoid", prediction=name)) for name in (prediction, "eps"))
    assert moments(sampler, given, 20) == pytest.approx(moments(sampler, paper, 20), rel=1e-6)


def test_ddim_and_euler_are_one_sampler_on_a_straight_path() -> None:
    process = NoiseProcess(NoiseConfig(schedule="flow-uniform"))
    assert moments("ddim", process, 20, eta=0.0) == pytest.approx(moments("euler", process, 20), rel=1e-9)
