"""Neighbours, precision and recall agree with other implementations. Lost modes cost recall, stray samples cost precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch_fidelity.metric_prc import calculate_precision_recall_full

from umd_bench.config.errors import UserError
from umd_bench.evaluation.metrics import precision_recall as module
from umd_bench.evaluation.metrics.precision_recall import euclidean_neighbours, precision_recall


def features(n: int, d: int = 6, *, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return scale * np.random.default_rng(seed).normal(size=(n, d))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BLOCK", 37)


def test_neighbours_are_scikit_learns() -> None:
    x, y = features(90), features(150, seed=1)
    distance, index = euclidean_neighbours(x, y, 5)
    theirs, which = NearestNeighbors(n_neighbors=5).fit(y).kneighbors(x)
    assert np.allclose(distance, theirs, rtol=1e-9)
    assert np.array_equal(index, which)


def test_no_sample_is_its_own_neighbour_in_its_own_set() -> None:
    x = features(90)
    distance, index = euclidean_neighbours(x, x, 2, exclude_self=True)
    assert (index != torch.arange(90)[:, None]).all()
    assert np.allclose(distance, NearestNeighbors(n_neighbors=3).fit(x).kneighbors(x)[0][:, 1:], rtol=1e-9)


def test_a_copy_is_at_distance_zero_from_its_original() -> None:
    x = features(90)
    distance, index = euclidean_neighbours(x[[70, 3]], x, 1)
    assert index.flatten().tolist() == [70, 3]
    assert distance.max() < 1e-6


@pytest.mark.parametrize(("n", "scale"), [(120, 0.7), (80, 1.4)])
def test_precision_and_recall_are_torch_fidelitys_on_the_same_features(n: int, scale: float) -> None:
    samples, real = features(n, scale=scale), features(100, seed=1)
    theirs = calculate_precision_recall_full(torch.from_numpy(samples), torch.from_numpy(real))
    assert precision_recall(samples, real) == pytest.approx(theirs, rel=1e-6)


def test_dropped_modes_cost_recall_and_stray_samples_precision() -> None:
    real = np.concatenate([features(60), features(60, seed=1) + 50])
    one_mode, stray = features(120, seed=2), np.concatenate([real + 1e-3, features(120, seed=3) - 50])
    precision, recall = precision_recall(one_mode, real)
    assert precision > 0.8
    assert recall < 0.55
    precision, recall = precision_recall(stray, real)
    assert precision == pytest.approx(0.5)
    assert recall == 1


def test_too_few_samples_and_other_widths_are_users_errors() -> None:
    with pytest.raises(UserError, match="3 nearest neighbours among 2 samples"):
        precision_recall(features(9), features(3))
    with pytest.raises(UserError, match="6 and of 4 dimensions"):
        euclidean_neighbours(features(9), features(9, 4), 1)
