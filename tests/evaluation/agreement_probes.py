"""Probes against independent implementations: each row of ``rows()`` is one comparison, with its largest difference.

test_agreement_probes.py sets the tolerances, and agreement_table.py prints the rows. Differences are relative to the largest
number of the other implementation.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from evaluation.comparison import Row
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.neighbors import KNeighborsClassifier

from umd_bench.bench.plain.linear_probe import plain_linear
from umd_bench.config.trial.probe_stage import LinearConfig
from umd_bench.evaluation.probes.knn import TEMPERATURE, cosine_neighbours, knn_accuracies
from umd_bench.evaluation.probes.linear_probe import Heads, train_heads
from umd_bench.evaluation.probes.ridge import fit_ridge, fit_ridge_path

RIDGES = (0.1, 10.0, 1024.0, 1e5)
BIAS = 100.0
RATES = (0.3, 1.0, 3.0, 10.0)
SEED = 3


def rows() -> list[Row]:
    """Every comparison, on the CPU, with features from a fixed seed."""
    return [*ridge_rows(), *knn_rows(), *linear_rows()]


def features(n: int, d: int, seed: int, classes: int = 5) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Features [n, d] with an offset, rounded to float32 and stored as float64, and labels of classes that overlap."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    centres = np.random.default_rng(99).normal(size=(classes, d))
    return (2 + centres[y] + 1.5 * rng.normal(size=(n, d))).astype(np.float32).astype(np.float64), y


def ridge_rows() -> Iterator[Row]:
    """Weights against scikit-learn's ridge on the standardised features and the constant, one fit per penalty."""
    for form, n, d in (("primal, 600 x 64", 600, 64), ("dual, 50 x 384", 50, 384)):
        x, y = features(n, d, seed=0)
        X = np.concatenate([(x - x.mean(0)) / (x.std(0) + 1e-5), np.full((n, 1), BIAS)], axis=1)
        Y = 2.0 * np.eye(5)[y] - 1
        path = fit_ridge_path(torch.from_numpy(x), torch.from_numpy(y), classes=5, ridges=RIDGES, bias=BIAS)
        known = [Ridge(alpha=ridge, fit_intercept=False, solver="svd").fit(X, Y).coef_.T for ridge in RIDGES]
        one = fit_ridge(torch.from_numpy(x), torch.from_numpy(y), classes=5, ridge=1024.0, bias=BIAS)
        yield Row(f"ridge weights, {form}, penalty 1024", "scikit-learn Ridge", relative(one.weights, known[2]))
        worst = max(relative(path.probe(r).weights, expected) for r, expected in enumerate(known))
        yield Row(f"ridge weights, {form}, penalties .1 to 1e5", "scikit-learn Ridge, one by one", worst)
        chosen = RidgeCV(alphas=RIDGES, fit_intercept=False, store_cv_results=True).fit(X, Y)
        expected = chosen.cv_results_.mean((0, 1))
        yield Row(f"leave-one-out error, {form}", "scikit-learn RidgeCV", relative(path.loo, expected))
        same = float(path.ridges[path.best] != chosen.alpha_)
        yield Row(f"penalty chosen, {form} (0: the same)", "scikit-learn RidgeCV", same)


def knn_rows() -> Iterator[Row]:
    """Neighbours, and accuracies with DINO's weighted votes."""
    (x, y), (queries, truth) = features(3000, 32, seed=0), features(1000, 32, seed=1)
    train, test = x.astype(np.float32), queries.astype(np.float32)
    known = KNeighborsClassifier(20, metric="cosine", algorithm="brute").fit(x, y)
    distance, _ = known.kneighbors(queries)
    similarity, _ = cosine_neighbours(train, test, 20)
    yield Row("similarities of the 20 nearest", "scikit-learn kneighbors", relative(similarity, 1 - distance))
    ours = knn_accuracies(train, torch.from_numpy(y), test, torch.from_numpy(truth), classes=5, ks=(1, 20))
    for k in (1, 20):
        voting = KNeighborsClassifier(
            k, metric="cosine", algorithm="brute", weights=lambda d: np.exp((1 - d) / TEMPERATURE)
        ).fit(x, y)
        difference = relative([ours[k]], [voting.score(queries, truth)])
        yield Row(f"accuracy of {k}-NN", "scikit-learn KNeighborsClassifier", difference)


def linear_rows() -> Iterator[Row]:
    """Weights after training: heads trained together, compared with heads trained alone and with heads that autograd trains.

    With autograd, LARS is written out, or timm's without weight decay.
    """
    for decay, library in ((0.5, "autograd, LARS written out"), (0.0, "autograd, timm Lars")):
        config = LinearConfig(lr_per_256=RATES, batch=64, epochs=8, warmup_epochs=2, weight_decay=decay)
        heads = trained(config)
        theirs = [trained_by_autograd(rate, config, library="timm" in library) for rate in RATES]
        worst = max(relative(heads.weights[:, place].T, weight) for place, weight in enumerate(theirs))
        yield Row(f"linear probe's weights, 4 learning rates at once, decay {decay:g}", library, worst)
    config = LinearConfig(lr_per_256=RATES, batch=64, epochs=8, warmup_epochs=2)
    together = trained(config).weights
    apart = [trained(config.model_copy(update={"lr_per_256": (rate,)})).weights[:, 0] for rate in RATES]
    worst = max(relative(together[:, place], alone) for place, alone in enumerate(apart))
    yield Row("linear probe's weights, 4 learning rates at once", "this project's loop, one learning rate at a time", worst)


def trained(config: LinearConfig) -> Heads:
    """The heads of ``config`` after training on 240 images."""
    x, y = features(240, 10, seed=0)
    return train_heads(x.astype(np.float32), np.arange(240), y, classes=5, config=config, seed=SEED)


def trained_by_autograd(rate: float, config: LinearConfig, *, library: bool) -> torch.Tensor:
    """Weights [K, D] of one head that is trained with torch's layers and autograd.

    LARS is written out, or with ``library`` timm's, whose weight decay differs.
    """
    x, y = features(240, 10, seed=0)
    return plain_linear(x.astype(np.float32), y, rate, classes=5, config=config, seed=SEED, library=library)


def relative(ours: object, theirs: object) -> float:
    """The largest difference between two arrays, relative to the largest number of the second."""
    a, b = (np.asarray(values, dtype=np.float64) for values in (ours, theirs))
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())


if __name__ == "__main__":
    for row in rows():
        print(f"| {row.quantity} | {row.library} | {row.difference:.1e} |")
