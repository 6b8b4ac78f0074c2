"""Ridge regression: the official weights, scikit-learn's weights, and the rules for drawing shots."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge, RidgeCV

from umd_bench.config.errors import UserError
from umd_bench.evaluation.probes.ridge import draw_shots, fit_ridge, fit_ridge_path

GOLDEN = Path(__file__).parents[2] / "golden" / "fewshot_lsr.npz"
LABELS = np.random.default_rng(0).integers(0, 4, 200)


@pytest.mark.parametrize("case", ["primal", "dual"])
def test_probe_is_the_official_one(case: str) -> None:
    z = {name.split("/")[1]: array for name, array in np.load(GOLDEN).items() if name.startswith(case)}
    probe = fit_ridge(torch.from_numpy(z["x"]), torch.from_numpy(z["y"]).long(), classes=10)
    np.testing.assert_allclose(probe.weights, z["w_float64_closed_form"], rtol=0, atol=1e-14)
    np.testing.assert_allclose(probe.weights, z["w"], rtol=0, atol=2e-5)  # the official weights are float32
    np.testing.assert_allclose(probe.mean[None], z["mean"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(probe.logits(torch.from_numpy(z["x_test"])), z["logits_test"], rtol=0, atol=1e-4)
    right = probe.accuracy(torch.from_numpy(z["x_test"]), torch.from_numpy(z["y_test"]).long())
    assert right == pytest.approx(float(z["acc"]), abs=1e-6)


@pytest.mark.parametrize(("n", "d"), [(80, 12), (12, 13), (13, 12), (12, 12), (20, 90)])
def test_probe_is_scikit_learns_ridge_with_the_constant_in_the_matrix(n: int, d: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(2, 3, (n, d)), rng.integers(0, 3, n)
    probe = fit_ridge(torch.from_numpy(x), torch.from_numpy(y), classes=3, ridge=7.0, bias=2.0)
    X = np.concatenate([(x - x.mean(0)) / (x.std(0) + 1e-5), np.full((n, 1), 2.0)], axis=1)
    expected = Ridge(alpha=7.0, fit_intercept=False, solver="svd").fit(X, 2.0 * np.eye(3)[y] - 1).coef_.T
    np.testing.assert_allclose(probe.weights, expected, rtol=1e-9, atol=1e-12)


RIDGES = (0.01, 1.0, 7.0, 1024.0)


@pytest.mark.parametrize(("n", "d"), [(80, 12), (12, 13), (13, 12), (12, 12), (20, 90)])
def test_every_regularisation_of_one_factorisation_equals_a_separate_fit(n: int, d: int) -> None:
    rng = np.random.default_rng(n)
    x, y = torch.from_numpy(rng.normal(2, 3, (n, d))), torch.from_numpy(rng.integers(0, 3, n))
    path = fit_ridge_path(x, y, classes=3, ridges=RIDGES, bias=2.0)
    for r, ridge in enumerate(RIDGES):
        expected = fit_ridge(x, y, classes=3, ridge=ridge, bias=2.0)
        torch.testing.assert_close(path.probe(r).weights, expected.weights, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("n", "d"), [(40, 6), (20, 90)])
def test_the_leave_one_out_error_in_closed_form_equals_real_leave_one_out(n: int, d: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, d)), rng.integers(0, 3, n)
    path = fit_ridge_path(torch.from_numpy(x), torch.from_numpy(y), classes=3, ridges=RIDGES, bias=2.0)
    X = np.concatenate([(x - x.mean(0)) / (x.std(0) + 1e-5), np.full((n, 1), 2.0)], axis=1)
    Y = 2.0 * np.eye(3)[y] - 1
    for r, ridge in enumerate(RIDGES):
        errors = []
        for i in range(n):
            rest = np.arange(n) != i
            w = np.linalg.solve(X[rest].T @ X[rest] + ridge * np.eye(d + 1), X[rest].T @ Y[rest])
            errors.append(Y[i] - X[i] @ w)
        assert path.loo[r] == pytest.approx(np.mean(np.square(errors)), rel=1e-7)
    known = RidgeCV(alphas=RIDGES, fit_intercept=False).fit(X, Y)
    assert path.ridges[path.best] == known.alpha_
    assert path.loo[path.best] == pytest.approx(-known.best_score_, rel=1e-7)


def test_of_equally_good_regularisations_the_largest_is_chosen() -> None:
    x, y = torch.zeros(6, 2, dtype=torch.float64), torch.arange(6) % 3  # no features to learn from, and no bias
    path = fit_ridge_path(x, y, classes=3, ridges=(1.0, 100.0, 10.0), bias=0.0)
    assert path.ridges[path.best] == 100.0


def test_probe_does_not_depend_on_the_order_of_its_images() -> None:
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.normal(size=(40, 6))), torch.from_numpy(rng.integers(0, 3, 40))
    order = torch.from_numpy(rng.permutation(40))
    torch.testing.assert_close(fit_ridge(x, y, classes=3).weights, fit_ridge(x[order], y[order], classes=3).weights)


def test_a_constant_feature_gets_no_weight() -> None:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 5.0
    assert fit_ridge(x, torch.arange(30) % 3, classes=3).weights[2].abs().max() < 1e-12


def test_accuracy_is_the_same_in_parts() -> None:
    x = torch.randn(5000, 3, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    probe = fit_ridge(x[:200], y[:200], classes=2)
    assert probe.accuracy(x, y) == (probe.logits(x).argmax(1) == y).double().mean().item() > 0.8


def test_shots_are_the_first_of_a_permutation_of_each_class() -> None:
    rng = np.random.default_rng(7)
    expected = [rng.permutation(np.flatnonzero(label == LABELS)) for label in range(4)]
    shots = draw_shots(LABELS, (1, 5), classes=4, seed=7)
    np.testing.assert_array_equal(shots[5], np.concatenate([order[:5] for order in expected]))
    np.testing.assert_array_equal(shots[1], [order[0] for order in expected])


def test_a_class_with_too_few_images_gives_all_of_them_and_none_twice() -> None:
    shots = draw_shots(LABELS, (10, 1000), classes=6, seed=0)  # classes 4 and 5 have no image
    assert np.bincount(LABELS[shots[10]]).tolist() == [10] * 4
    assert sorted(shots[1000]) == list(range(200))


def test_draws_differ_with_their_seed() -> None:
    assert not np.array_equal(*(draw_shots(LABELS, (5,), classes=4, seed=seed)[5] for seed in (0, 1)))


def test_nan_features_and_mismatched_shapes_or_labels_are_refused() -> None:
    x, y = torch.randn(6, 2), torch.arange(6) % 3
    with pytest.raises(UserError, match="NaN or infinite"):
        fit_ridge(x.index_fill(0, torch.tensor(1), float("nan")), y, classes=3)
    with pytest.raises(UserError, match=r"expected \[N, D\] and \[N\]"):
        fit_ridge(x, y[:5], classes=3)
    with pytest.raises(UserError, match=r"labels 0\.\.2 are not accepted: expected 0\.\.1"):
        fit_ridge(x, y, classes=2)
    with pytest.raises(UserError, match=r"expected \[N, D\] and \[N\]"):
        fit_ridge(x[:0], y[:0], classes=3)


def test_a_small_fit_runs_on_one_thread_and_restores_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda gram: (seen.append(torch.get_num_threads()), eigh(gram))[1])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        for n, classes in ((40, 4), (400, 4), (40, 1)):
            x, y = torch.randn(n, 384), torch.arange(n) % 4
            if classes == 1:
                with pytest.raises(UserError):
                    fit_ridge_path(x, y, classes=classes, ridges=(1.0,))
            else:
                fit_ridge_path(x, y, classes=classes, ridges=(1.0,)).probe(0)
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [1, 2]


def test_a_small_fit_gives_the_same_bits_with_any_number_of_threads() -> None:
    x, y = torch.randn(60, 128, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 4
    weights = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            weights.append(fit_ridge_path(x, y, classes=4, ridges=(1.0, 100.0)).probe(1).weights)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*weights)
