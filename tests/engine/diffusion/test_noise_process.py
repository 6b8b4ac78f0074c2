"""Prediction targets; the image and the noise are recovered from a prediction."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.engine.diffusion.noise_process import PREDICTIONS, NoiseProcess
from umd_bench.engine.diffusion.objective import LOSS_WEIGHTS
from umd_bench.engine.diffusion.schedules import SCHEDULES

PATHS = {"circle": "cosine", "line": "flow-uniform"}


def test_every_prediction_in_the_configuration_has_a_row() -> None:
    assert set(get_args(NoiseConfig.model_fields["prediction"].annotation)) == PREDICTIONS.keys()
    assert set(get_args(TrainStage.model_fields["loss_weight"].annotation)) == LOSS_WEIGHTS.keys()


def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x_0, eps = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    return x_0, eps


@pytest.mark.parametrize("t", [1.0, 250.0, 1000.0])
@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_target_gives_back_the_image_and_the_noise(schedule: str, prediction: str, t: float) -> None:
    process = NoiseProcess(NoiseConfig(schedule=schedule, prediction=prediction))
    x_0, eps = pair()
    times = torch.full((3,), t, dtype=torch.float64)
    found = process.solve(process.q_sample(x_0, times, eps), t, process.target(x_0, times, eps))
    torch.testing.assert_close(found, (x_0, eps), rtol=1e-9, atol=1e-9)


def test_the_papers_target_is_the_noise_to_the_bit() -> None:
    x_0, eps = (value.float() for value in pair())
    assert torch.equal(NoiseProcess(NoiseConfig()).target(x_0, torch.tensor([1.0, 500.0, 1000.0]), eps), eps)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_velocity_is_the_derivative_along_the_path(schedule: str) -> None:
    process = NoiseProcess(NoiseConfig(schedule=schedule, prediction="v"))
    x_0, eps = pair()
    before, at, after = 499.0, 500.0, 501.0
    x = {t: process.q_sample(x_0, torch.full((3,), t, dtype=torch.float64), eps) for t in (before, after)}
    difference = (x[after] - x[before]) / (process.theta(after) - process.theta(before))
    v = process.target(x_0, torch.full((3,), at, dtype=torch.float64), eps)
    torch.testing.assert_close(v, difference, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("path", PATHS)
def test_min_snr_weights_every_target_as_it_weights_the_image(path: str, prediction: str) -> None:
    """For every target, the weighted loss is min(SNR, gamma) times the squared error of x_0."""
    process = NoiseProcess(NoiseConfig(schedule=PATHS[path], prediction=prediction))
    x_0, eps = pair()
    for t in (1.0, 300.0, 700.0, 1000.0):
        times = torch.full((3,), t, dtype=torch.float64)
        alpha, sigma = process.at(t)
        x_t = process.q_sample(x_0, times, eps)
        guess = x_0 + 0.1  # the noise below follows from this guess and x_t
        error = process.target(guess, times, (x_t - alpha * guess) / sigma) - process.target(x_0, times, eps)
        weighed = process.min_snr(times, 5.0).view(-1, 1, 1, 1) * error.square()
        expected = min((alpha / sigma) ** 2, 5.0) * 0.01
        torch.testing.assert_close(weighed, torch.full_like(weighed, expected), rtol=1e-6, atol=0)


def test_min_snr_of_the_noise_and_the_velocity_are_the_papers() -> None:
    t = torch.tensor([1.0, 400.0, 900.0])
    for prediction, expected in (("eps", lambda snr: 1 / snr), ("x_0", torch.ones_like), ("v", lambda snr: 1 / (snr + 1))):
        process = NoiseProcess(NoiseConfig(prediction=prediction))
        alpha, sigma = process.path(t)
        snr = (alpha / sigma).square()
        torch.testing.assert_close(process.min_snr(t, 5.0), snr.clamp(max=5) * expected(snr))
