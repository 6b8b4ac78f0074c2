"""How fast the probes are, each compared with an independent implementation: scikit-learn, timm's LARS, a plain loop."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.linear_model import Ridge

from umd_bench.bench.comparison import ComparisonResult, Pair, compare
from umd_bench.bench.plain.linear_probe import plain_linear
from umd_bench.bench.timing.machine import Machine
from umd_bench.config.trial.probe_stage import LinearConfig
from umd_bench.evaluation.probes.knn import TEMPERATURE, knn_accuracies
from umd_bench.evaluation.probes.linear_probe import train_heads
from umd_bench.evaluation.probes.ridge import fit_ridge_path

RIDGES = tuple(10.0**power for power in range(-2, 6))
_CLASSES, _BIAS, _SEED, _K = 10, 100.0, 0, 20


def bench_probe(
    *,
    machine: Machine,
    width: int = 384,
    images: int = 4000,
    repeats: int,
    device: torch.device,
    progress: Callable[[str], None] = lambda _: None,
) -> ComparisonResult:
    """Time ridge, linear and k-NN probes on random features [images, width] of ten overlapping classes, on the CPU."""
    x, y = _features(images, width, 0)
    queries, truth = _features(images // 4, width, 1)
    shots = min(1000, images)
    pairs = [
        _ridge(x[:shots], y[:shots], f"ridge, {len(RIDGES)} penalties, {shots:,} x {width}"),
        _ridge(x[:100], y[:100], f"ridge, {len(RIDGES)} penalties, 100 x {width}"),
        _linear(x, y),
        _knn(x, y, queries, truth),
    ]
    compared = compare(pairs, repeats=repeats, device=device, warm_up=False, progress=progress)
    return ComparisonResult(machine, "Probes", "runs", compared, {})


def _features(n: int, d: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % _CLASSES
    centres = np.random.default_rng(99).normal(size=(_CLASSES, d)) / 4
    return (1 + centres[y] + rng.normal(size=(n, d))).astype(np.float32), y


def _ridge(x: NDArray[np.float32], y: NDArray[np.int64], label: str) -> Pair:
    """Ours: all penalties from one factorisation. Theirs: one fit per penalty."""
    features, labels, double = torch.from_numpy(x), torch.from_numpy(y), x.astype(np.float64)

    def ours() -> torch.Tensor:
        path = fit_ridge_path(features, labels, classes=_CLASSES, ridges=RIDGES, bias=_BIAS)
        return torch.stack([path.probe(r).weights for r in range(len(RIDGES))])

    def theirs() -> torch.Tensor:
        X = np.concatenate([(double - double.mean(0)) / (double.std(0) + 1e-5), np.full((len(x), 1), _BIAS)], axis=1)
        Y = 2.0 * np.eye(_CLASSES)[y] - 1
        fits = [Ridge(alpha=ridge, fit_intercept=False, solver="cholesky").fit(X, Y).coef_.T for ridge in RIDGES]
        return torch.from_numpy(np.stack(fits))

    return Pair(label, "scikit-learn Ridge, one by one", ours, theirs)


def _linear(x: NDArray[np.float32], y: NDArray[np.int64]) -> Pair:
    """Ours: eight learning rates at once. Theirs: one training per learning rate."""
    config = LinearConfig(batch=512, epochs=4, warmup_epochs=1, weight_decay=0.0)
    index = np.arange(len(x))

    def ours() -> torch.Tensor:
        return train_heads(x, index, y, classes=_CLASSES, config=config, seed=_SEED).weights.permute(1, 2, 0)

    def theirs() -> torch.Tensor:
        heads = [plain_linear(x, y, rate, classes=_CLASSES, config=config, seed=_SEED) for rate in config.lr_per_256]
        return torch.stack(heads)

    return Pair(f"linear, 8 rates, {len(x):,} x {x.shape[1]}, 4 epochs", "autograd, timm Lars, one by one", ours, theirs)


def _knn(x: NDArray[np.float32], y: NDArray[np.int64], queries: NDArray[np.float32], truth: NDArray[np.int64]) -> Pair:
    """Ours: queries in blocks of rows. Theirs: one query at a time."""
    labels, expected = torch.from_numpy(y), torch.from_numpy(truth)

    def ours() -> float:
        return knn_accuracies(x, labels, queries, expected, classes=_CLASSES, ks=(_K,))[_K]

    def theirs() -> float:
        train = F.normalize(torch.from_numpy(x))
        right = 0
        for query, label in zip(torch.from_numpy(queries), truth, strict=True):
            near, index = (train @ F.normalize(query, dim=0)).topk(_K)
            votes = torch.zeros(_CLASSES, dtype=torch.float64)
            votes.index_add_(0, labels[index], (near.double() / TEMPERATURE).exp())
            right += int(votes.argmax()) == label
        return right / len(truth)

    return Pair(f"{_K}-NN, {len(queries):,} of {len(x):,} x {x.shape[1]}", "plain loop over the queries", ours, theirs)
