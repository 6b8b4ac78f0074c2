"""The kernel distance equals torch-fidelity's, has no bias in n, and is the same in every call."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from umd_bench.config.errors import UserError
from umd_bench.evaluation.metrics.kid import kernel_distance


def features(n: int, d: int = 24, *, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d)) + shift


@pytest.mark.parametrize("n", [300, 120])
def test_distance_is_torch_fidelitys_on_the_same_features(n: int) -> None:
    x, y = features(n), features(200, seed=1, shift=0.3)
    ours = kernel_distance(x, y, subsets=12, size=100)
    theirs = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=12, kid_subset_size=100, rng_seed=2020, verbose=False
    )
    assert ours.mean == pytest.approx(theirs[KEY_METRIC_KID_MEAN], rel=1e-9)
    assert ours.deviation == pytest.approx(theirs[KEY_METRIC_KID_STD], rel=1e-6)


def test_distance_between_sets_of_one_distribution_is_zero_on_average_at_any_n() -> None:
    for n in (20, 200):
        distances = [kernel_distance(features(n, seed=2 * i), features(n, seed=2 * i + 1)).mean for i in range(40)]
        assert abs(np.mean(distances)) < 3 * np.std(distances) / 40**0.5
        assert min(distances) < 0


def test_distance_grows_with_the_difference_and_repeats() -> None:
    x = features(300)
    near, far = (kernel_distance(x, features(300, seed=1, shift=s), subsets=5, size=100) for s in (0.2, 0.6))
    assert 0 < near.mean < far.mean
    assert near == kernel_distance(x, features(300, seed=1, shift=0.2), subsets=5, size=100)


def test_subsets_are_no_larger_than_the_smaller_set_and_two_whole_sets_are_one_pair() -> None:
    assert [(d.subsets, d.size) for d in (kernel_distance(features(40), features(n), subsets=3) for n in (40, 90))] == [
        (1, 40),
        (3, 40),
    ]


def test_too_few_samples_and_other_widths_are_users_errors() -> None:
    with pytest.raises(UserError, match="expected at least 2 of each"):
        kernel_distance(features(1), features(9))
    with pytest.raises(UserError, match="24 and of 8 dimensions"):
        kernel_distance(features(9), features(9, 8))
