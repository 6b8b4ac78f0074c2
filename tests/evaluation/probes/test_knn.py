"""The k-nearest-neighbour probe equals scikit-learn's with the weighted votes of DINO, for any block size."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from umd_bench.config.errors import UserError
from umd_bench.evaluation.probes import knn
from umd_bench.evaluation.probes.knn import TEMPERATURE, cosine_neighbours, knn_accuracies


def clustered(seed: int = 0, n: int = 700, d: int = 12) -> tuple[np.ndarray, torch.Tensor]:
    """Classes that overlap, so that neighbours disagree."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 5, n)
    centres = np.random.default_rng(99).normal(size=(5, d))
    return (1.5 * centres[y] + rng.normal(size=(n, d)) * 1.6).astype(np.float32), torch.from_numpy(y)


@pytest.mark.parametrize("k", [1, 5, 20])
def test_knn_is_scikit_learns_with_the_votes_of_dino(k: int) -> None:
    (x, y), (queries, truth) = clustered(0), clustered(1, n=300)
    known = KNeighborsClassifier(k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / TEMPERATURE))
    expected = known.fit(x.astype(np.float64), y).score(queries.astype(np.float64), truth)
    accuracies = knn_accuracies(x, y, queries, truth, classes=5, ks=(1, 5, 20), device="cpu")
    assert accuracies[k] == pytest.approx(expected, abs=1e-12)
    assert 0.5 < accuracies[k] < 0.99


def test_neighbours_are_the_nearest_by_cosine_for_any_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    (x, _), (queries, _) = clustered(0), clustered(1, n=65)
    unit = [a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x.astype(np.float64), queries.astype(np.float64))]
    full = unit[1] @ unit[0].T
    order = np.argsort(-full, axis=1)[:, :7]
    monkeypatch.setattr(knn, "_TRAIN_ROWS", 5)  # smaller than k
    monkeypatch.setattr(knn, "_TEST_ROWS", 16)
    similarity, index = cosine_neighbours(x, queries, 7)
    np.testing.assert_array_equal(index, order)
    np.testing.assert_allclose(similarity, np.take_along_axis(full, order, axis=1), rtol=0, atol=1e-6)


def test_scale_of_a_feature_vector_does_not_matter_and_a_zero_vector_is_no_error() -> None:
    (x, y), (queries, truth) = clustered(0), clustered(1, n=100)
    once = knn_accuracies(x, y, queries, truth, classes=5, ks=(5,))
    assert knn_accuracies(x * 7, y, queries * 0.01, truth, classes=5, ks=(5,)) == once
    assert 0 <= knn_accuracies(np.zeros_like(x), y, queries, truth, classes=5, ks=(5,))[5] <= 1


def test_more_neighbours_than_images_are_refused() -> None:
    x, y = clustered(n=10)
    with pytest.raises(UserError, match="k = 11 is not accepted: there are 10 training images"):
        knn_accuracies(x, y, x, y, classes=5, ks=(3, 11))
