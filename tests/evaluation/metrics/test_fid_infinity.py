"""The extrapolation removes a Fréchet distance's bias in n, on average, and is the same in every call."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from umd_bench.config.errors import UserError
from umd_bench.evaluation.metrics.fid_infinity import extrapolate, gaussian_of
from umd_bench.evaluation.metrics.frechet import Gaussian, frechet_distance

D = 16


def features(n: int, seed: int, shift: float = 0.5) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(n, D)) + shift).astype(np.float32)


REFERENCE = Gaussian(10**9, torch.zeros(D, dtype=torch.float64), torch.eye(D, dtype=torch.float64))
TRUE = D * 0.25


def test_the_intercept_is_the_distance_without_its_bias() -> None:
    lines = [extrapolate(features(300, seed), REFERENCE) for seed in range(30)]
    at_n, intercepts = (np.mean([line.distances[-1] for line in lines]), [line.intercept for line in lines])
    assert at_n - TRUE > 0.15  # the bias is there
    assert abs(np.mean(intercepts) - TRUE) < 3 * np.std(intercepts) / 30**0.5
    assert np.mean([line.slope for line in lines]) > 0


def test_points_are_equally_spaced_and_end_with_the_whole_set() -> None:
    x = features(300, 0)
    line = extrapolate(x, REFERENCE)
    assert line.n == (100, 150, 200, 250, 300)
    assert line.distances[-1] == pytest.approx(frechet_distance(Gaussian.of(torch.from_numpy(x)), REFERENCE), rel=1e-9)
    assert line == extrapolate(x, REFERENCE)


def test_two_samples_give_their_own_distance() -> None:
    line = extrapolate(features(2, 0), REFERENCE)
    assert (line.n, line.intercept, line.slope) == ((2,), line.distances[0], 0)


def test_a_gaussian_of_one_sample_is_a_users_error() -> None:
    for n in (0, 1):
        with pytest.raises(UserError, match=f"a covariance of {n} samples"):
            gaussian_of(features(9, 0), np.arange(n))
