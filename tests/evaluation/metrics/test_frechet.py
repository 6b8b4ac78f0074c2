"""The Fréchet distance: the official numbers, the matrix square root's, and properties that hold for any features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.metrics.frechet import Gaussian, Moments, frechet_distance

GOLDEN = Path(__file__).parents[2] / "golden" / "fid_is.npz"


def features(n: int, d: int, *, seed: int = 0, offset: float = 0.0, rank: int | None = None) -> Tensor:
    """Correlated float64 features [n, d] of rank ``rank``, or ``d`` if it is None."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.randn(rank or d, d, generator=g, dtype=torch.float64)
    return torch.randn(n, rank or d, generator=g, dtype=torch.float64) @ mix + offset


def gaussian(mean: np.ndarray, covariance: np.ndarray) -> Gaussian:
    """Built from Moments, as for streamed features, so that the golden covariances test Moments too."""
    n = 1001
    mu = torch.from_numpy(mean)
    return Moments(n, n * mu, (n - 1) * torch.from_numpy(covariance) + n * torch.outer(mu, mu)).gaussian()


def by_square_root(a: Tensor, b: Tensor) -> float:
    """The textbook formula, with scipy's square root of a matrix."""
    S_a, S_b = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    root = sqrtm(S_a @ S_b)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(S_a + S_b - 2 * root.real))


@pytest.mark.parametrize("case", ["a", "b"])
def test_frechet_distance_is_the_official_one(case: str) -> None:
    z = np.load(GOLDEN)
    a, b = (gaussian(z[f"{case}/mu{i}"], z[f"{case}/sigma{i}"]) for i in (1, 2))
    assert frechet_distance(a, b) == pytest.approx(float(z[f"{case}/fid"]), rel=1e-10)


def test_frechet_distance_of_low_ranks_is_the_official_one_to_the_error_of_its_square_root() -> None:
    z = np.load(GOLDEN)
    S1, S2 = z["lowrank/sigma1"], z["lowrank/sigma2"]
    a, b = gaussian(z["lowrank/mu1"], S1), gaussian(z["lowrank/mu2"], S2)
    assert (a.factor.shape[1], b.factor.shape[1]) == (39, 49)
    # Each zero eigenvalue of S1 S2 is known to eps |S1| |S2| only, and the official method takes square roots of them.
    error = np.sqrt(np.finfo(float).eps * np.linalg.norm(S1, 2) * np.linalg.norm(S2, 2))
    official = float(z["lowrank/fid"])
    assert abs(frechet_distance(a, b) - official) < 2 * (64 - 39) * error < 1e-6 * official


@pytest.mark.parametrize(("n", "d", "offset"), [(400, 16, 0.0), (300, 64, 3.0)])
def test_frechet_distance_agrees_with_the_matrix_square_root(n: int, d: int, offset: float) -> None:
    a, b = features(n, d, seed=1, offset=offset), 1.2 * features(n, d, seed=2)
    assert frechet_distance(Gaussian.of(a), Gaussian.of(b)) == pytest.approx(by_square_root(a, b), rel=1e-6)


def test_frechet_distance_of_known_gaussians() -> None:
    a = Gaussian(10, torch.zeros(2, dtype=torch.float64), torch.diag(torch.tensor([1.0, 2.0], dtype=torch.float64)))
    b = Gaussian(10, torch.tensor([3.0, 4.0], dtype=torch.float64), torch.diag(torch.tensor([4.0, 2.0], dtype=torch.float64)))
    assert frechet_distance(a, b) == pytest.approx(25 + (4 - 1) ** 2, abs=1e-12)


@pytest.mark.parametrize(("n", "d", "rank"), [(500, 32, None), (20, 64, None), (500, 64, 10)])
def test_a_set_is_at_distance_zero_from_itself(n: int, d: int, rank: int | None) -> None:
    x = features(n, d, rank=rank)
    for a in (Gaussian.of(x), Moments.of(x).gaussian()):
        assert frechet_distance(a, a) <= 1e-12 * float(a.factor.square().sum())


@pytest.mark.parametrize("n", [12, 64, 65, 300])
def test_streamed_moments_give_the_same_distance_as_the_samples_for_any_n(n: int) -> None:
    a, b = features(n, 64, seed=1), features(n + 3, 64, seed=2, offset=1.0)
    direct = frechet_distance(Gaussian.of(a), Gaussian.of(b))
    streamed = frechet_distance(Moments.of(a).gaussian(), Moments.of(b).gaussian())
    assert direct == pytest.approx(streamed, rel=1e-10)


def test_rank_of_the_factor_is_the_rank_of_the_samples_even_far_from_the_origin() -> None:
    assert Moments.of(features(200, 64, rank=10, offset=100.0)).gaussian().factor.shape == (64, 10)


def test_a_nuclear_norm_that_eigenvalues_cannot_resolve_is_computed_by_svd() -> None:
    """One large direction and 79 small ones: the square roots of their rounded squares would have an error of 1e-10."""
    g = torch.Generator().manual_seed(0)
    turn, other = torch.linalg.qr(torch.randn(2, 80, 80, generator=g, dtype=torch.float64)).Q
    sizes = torch.tensor([1.0, *[5e-4] * 79], dtype=torch.float64)
    a = Gaussian(1000, torch.zeros(80, dtype=torch.float64), (turn * sizes) @ other)
    assert frechet_distance(a, a) < 1e-12


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(1, 199), max_size=6), seed=st.integers(0, 5))
def test_merged_moments_are_those_of_the_whole_in_any_parts_and_order(cuts: list[int], seed: int) -> None:
    x = features(200, 8, seed=seed, offset=50.0)[torch.randperm(200, generator=torch.Generator().manual_seed(seed))]
    parts = [Moments.of(x[a:b]) for a, b in zip([0, *sorted(cuts)], [*sorted(cuts), 200], strict=True) if b > a]
    merged = parts[-1]
    for part in parts[-2::-1]:
        merged = merged.merged(part)
    whole = Moments.of(x).gaussian()
    assert merged.count == 200
    torch.testing.assert_close(merged.gaussian().mean, whole.mean, rtol=1e-13, atol=0)
    covariance = merged.gaussian().factor @ merged.gaussian().factor.T
    torch.testing.assert_close(covariance, torch.cov(x.T), rtol=1e-9, atol=1e-9)


def test_distance_is_symmetric_and_does_not_depend_on_the_order_of_samples() -> None:
    a, b = features(100, 16, seed=1), features(100, 16, seed=2)
    shuffled = a[torch.randperm(100, generator=torch.Generator().manual_seed(0))]
    there = frechet_distance(Gaussian.of(a), Gaussian.of(b))
    assert frechet_distance(Gaussian.of(b), Gaussian.of(a)) == pytest.approx(there, rel=1e-12)
    assert frechet_distance(Gaussian.of(shuffled), Gaussian.of(b)) == pytest.approx(there, rel=1e-12)


def test_float32_features_are_summed_in_float64() -> None:
    x = (features(5000, 4, offset=0.0) + 4096).float()
    factor = Moments.of(x).gaussian().factor
    torch.testing.assert_close(factor @ factor.T, torch.cov(x.double().T), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_features_that_are_nan_or_infinite_are_refused(bad: float) -> None:
    x = features(10, 4)
    x[3, 2] = bad
    for statistic in (Moments.of, Gaussian.of):
        with pytest.raises(UserError, match="1 of 10 samples"):
            statistic(x)


@pytest.mark.parametrize("x", [torch.zeros(3, 2, dtype=torch.int64), torch.zeros(6), torch.zeros(1, 2, 3)])
def test_another_dtype_or_shape_is_refused(x: Tensor) -> None:
    with pytest.raises(UserError, match=r"expected floats \[N, D\]"):
        Moments.of(x)


def test_other_widths_and_single_samples_are_refused() -> None:
    with pytest.raises(UserError, match="4 and of 5 dimensions"):
        frechet_distance(Gaussian.of(features(10, 4)), Gaussian.of(features(10, 5)))
    with pytest.raises(UserError, match="4 and of 5 dimensions"):
        Moments.of(features(10, 4)).merged(Moments.of(features(10, 5)))
    with pytest.raises(UserError, match="at least 2"):
        Moments.of(features(1, 4)).gaussian()
    with pytest.raises(UserError, match="at least 2"):
        Gaussian.of(features(1, 4))
