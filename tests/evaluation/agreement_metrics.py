"""Scores against independent implementations: each row of ``rows()`` is one comparison, with its relative difference.

test_agreement_metrics.py sets the tolerances, and agreement_table.py prints the rows. The speed of the Fréchet distance at the
width of Inception's features is measured by hand, on an otherwise idle machine:

    PYTHONPATH=tests python tests/evaluation/agreement_metrics.py speed
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch
from evaluation.comparison import Row
from scipy.linalg import sqrtm, svdvals
from torch import Tensor
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, kid_features_to_metric
from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

from umd_bench.evaluation.metrics.frechet import Gaussian, Moments, frechet_distance
from umd_bench.evaluation.metrics.inception_score import inception_score
from umd_bench.evaluation.metrics.kid import kernel_distance
from umd_bench.evaluation.metrics.precision_recall import precision_recall


def rows() -> list[Row]:
    """Every comparison, on fixed, correlated features from two distributions."""
    return [*frechet_rows(), *torch_fidelity_rows()]


def features(n: int, d: int, *, seed: int) -> Tensor:
    """float64 [n, d] away from 0, with a spectrum that falls like a network's; each seed has its own distribution."""
    g = torch.Generator().manual_seed(seed)
    mix = torch.linalg.qr(torch.randn(d, d, generator=g, dtype=torch.float64)).Q * (torch.arange(1, d + 1) ** -0.7)[:, None]
    shift = 0.5 + 0.1 * torch.randn(d, generator=g, dtype=torch.float64)
    return torch.randn(n, d, generator=g, dtype=torch.float64) @ mix + shift


def frechet_rows() -> list[Row]:
    full = features(2000, 64, seed=0), features(1500, 64, seed=1)
    few = features(60, 128, seed=2), features(80, 128, seed=3)
    mixed = features(60, 128, seed=2), features(2000, 128, seed=4)
    root = "scipy.linalg.sqrtm, float64"
    nuclear = "scipy.linalg.svdvals: nuclear norm of the centred samples' product, float64"
    x = full[0]
    return [
        Row("Fréchet distance, N = 2,000 and 1,500, D = 64", root, _relative(_ours(*full), by_square_root(*full))),
        Row(
            "Fréchet distance from moments streamed in batches of 100, N = 2,000 and 1,500, D = 64",
            root,
            _relative(_streamed(*full), by_square_root(*full)),
        ),
        Row("Fréchet distance, N = 60 and 80, D = 128", nuclear, _relative(_ours(*few), by_nuclear_norm(*few))),
        Row(
            "Fréchet distance, N = 60 and 2,000, D = 128",
            nuclear,
            _relative(_ours(*mixed), by_nuclear_norm(*mixed)),
        ),
        Row("Fréchet distance of a set to itself, divided by its variance", "0", _ours(x, x) / float(x.var(0).sum())),
        Row("Fréchet distance, N = 2,000 and 1,500, D = 64", "torch-fidelity", _relative(_ours(*full), _fidelity_fid(*full))),
    ]


def torch_fidelity_rows() -> list[Row]:
    x, y = features(1200, 64, seed=0), features(1100, 64, seed=1)
    kid = kid_features_to_metric(x, y, kid_subsets=20, kid_subset_size=1000, rng_seed=2020, verbose=False)
    distance = kernel_distance(x.numpy(), y.numpy(), subsets=20)
    logits = 3 * features(1003, 100, seed=2)
    isc = isc_features_to_metric(logits, splits=10, shuffle=False)
    score, deviation = inception_score(logits)
    near = features(700, 16, seed=5), torch.cat([features(400, 16, seed=5), features(400, 16, seed=6)])
    prc = prc_features_to_metric(*near, prc_neighborhood=3, save_cpu_ram=False, verbose=False, prc_batch_size=10_000)
    precision, recall = precision_recall(near[0].numpy(), near[1].numpy())
    return [
        Row("KID, 20 subsets of 1,000, D = 64", "torch-fidelity", _relative(distance.mean, kid[KEY_METRIC_KID_MEAN])),
        Row("Inception score, N = 1,003, 10 splits", "torch-fidelity", _relative(score, isc[KEY_METRIC_ISC_MEAN])),
        Row(
            "Inception score, N = 1,003: standard deviation over the 10 splits",
            "torch-fidelity",
            _relative(deviation, isc[KEY_METRIC_ISC_STD]),
        ),
        Row(
            f"Precision ({precision:.3f}), N = 700 and 800, k = 3",
            "torch-fidelity",
            _relative(precision, prc[KEY_METRIC_PRECISION]),
        ),
        Row(f"Recall ({recall:.3f}), N = 700 and 800, k = 3", "torch-fidelity", _relative(recall, prc[KEY_METRIC_RECALL])),
    ]


def by_square_root(a: Tensor, b: Tensor) -> float:
    """The textbook formula, with scipy's square root of a matrix."""
    S_a, S_b = np.cov(a.numpy(), rowvar=False), np.cov(b.numpy(), rowvar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        root = sqrtm(S_a @ S_b)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(S_a + S_b - 2 * root.real))


def by_nuclear_norm(a: Tensor, b: Tensor) -> float:
    """The distance by the nuclear norm, with the centred samples over sqrt(N - 1) as factors: exact at any rank."""
    A, B = (((x - x.mean(0)) / (len(x) - 1) ** 0.5).numpy() for x in (a, b))
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + (A**2).sum() + (B**2).sum() - 2 * svdvals(A @ B.T).sum())


def speed(d: int = 2048, n: int = 10_000) -> str:
    """One sentence: the seconds of the distance and of the textbook formula for two full covariances, medians of three."""
    a, b = (Moments.of(features(n, d, seed=seed)) for seed in (0, 1))
    covariances = [((m.outer - m.count * torch.outer(m.total, m.total) / m.count**2) / (m.count - 1)).numpy() for m in (a, b)]
    reference = b.gaussian()  # not timed below: the factor of a reference is cached on disk

    def ours() -> float:
        return frechet_distance(a.gaussian(), reference)

    def root() -> float:
        return float(np.trace(sqrtm(covariances[0] @ covariances[1]).real))

    distance = frechet_distance(a.gaussian(), reference)
    mean = float(((a.total / a.count - b.total / b.count) ** 2).sum())
    textbook = mean + sum(np.trace(S) for S in covariances) - 2 * root()
    whole, svd, theirs = (_median(f) for f in (ours, lambda: frechet_distance(reference, reference), root))
    return (
        f"D = {d}, N = {n}, {torch.get_num_threads()} thread(s), medians of 3: sqrtm {theirs:.1f} s; "
        f"the distance with the samples' factor {whole:.1f} s ({theirs / whole:.1f}x), from two factors {svd:.1f} s "
        f"({theirs / svd:.1f}x); difference {_relative(distance, textbook):.1e}"
    )


def _median(call: Callable[[], float]) -> float:
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def _ours(a: Tensor, b: Tensor) -> float:
    return frechet_distance(Gaussian.of(a), Gaussian.of(b))


def _streamed(*sets: Tensor) -> float:
    gaussians = []
    for x in sets:
        first, *rest = map(Moments.of, x.split(100))
        for part in rest:
            first = first.merged(part)
        gaussians.append(first.gaussian())
    return frechet_distance(*gaussians)


def _fidelity_fid(a: Tensor, b: Tensor) -> float:
    metrics = fid_statistics_to_metric(fid_features_to_statistics(a), fid_features_to_statistics(b), verbose=False)
    return float(metrics[KEY_METRIC_FID])


def _relative(ours: float, theirs: float) -> float:
    return abs(ours - theirs) / abs(theirs)


if __name__ == "__main__":
    if sys.argv[1:] == ["speed"]:
        print(speed())
    else:
        for row in rows():
            print(f"| {row.quantity} | {row.library} | {row.difference:.1e} |")
