"""How fast the Fréchet distance is, compared with the textbook formula that takes scipy's matrix root; and the extractors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy.linalg import sqrtm
from torch import Tensor

from umd_bench.bench.comparison import ComparisonResult, Pair, compare
from umd_bench.bench.timing.machine import Machine
from umd_bench.bench.timing.throughput import Throughput, measure
from umd_bench.evaluation.extractors.contract import Extractor
from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.metrics.frechet import Gaussian, Moments, frechet_distance

WIDTHS = (256, 2048)  # features of a small classifier and of Inception
_BATCH = 64  # images in one call of an extractor
_SIDE = 64  # side in pixels of the images for an extractor that takes any side


def bench_fid(
    *,
    machine: Machine,
    widths: tuple[int, ...] = WIDTHS,
    extractors: tuple[str, ...] = (),
    repeats: int,
    device: torch.device,
    progress: Callable[[str], None] = lambda _: None,
) -> ComparisonResult:
    """Time the distance on the CPU, for each width at full rank (N = 2 D) and low rank (N = D / 4); and time the extractors.

    Both implementations start from the samples' moments (full rank) or the samples (low rank), and from the stored reference,
    which is a factor of the covariance for ours and the covariance for the textbook. Raises as :func:`load_extractor`.
    """
    loaded = {name: load_extractor(name, device) for name in extractors}
    pairs = [pair for D in widths for pair in (_full(D), _low(D))]
    compared = compare(pairs, repeats=repeats, device=torch.device("cpu"), warm_up=False, progress=progress)
    alone: dict[str, Throughput] = {}
    for name, extractor in loaded.items():
        C, H, W = extractor.shape
        images = torch.randint(0, 256, (_BATCH, C, H or _SIDE, W or _SIDE), dtype=torch.uint8)

        def extract(extractor: Extractor = extractor, images: Tensor = images) -> int:
            extractor.features(images)
            return len(images)

        alone |= measure({f"features of {name}, images": extract}, repeats=repeats, device=device, progress=progress)
    return ComparisonResult(machine, "Fréchet distance", "distances", compared, alone)


def textbook(mean_a: Tensor, covariance_a: Tensor, mean_b: Tensor, covariance_b: Tensor) -> float:
    """``|mu_a - mu_b|^2 + tr(S_a + S_b - 2 sqrtm(S_a S_b))``, as most implementations compute it (arXiv 1706.08500, eq. 6)."""
    root = sqrtm((covariance_a @ covariance_b).numpy())
    distance = (mean_a - mean_b).square().sum() + covariance_a.trace() + covariance_b.trace() - 2 * np.trace(root.real)
    return float(distance)


def _features(n: int, d: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.4 + torch.randn(n, d, generator=generator, dtype=torch.float64) * (1 + 0.1 * seed)


def _full(D: int) -> Pair:
    a, b = (_features(2 * D, D, seed) for seed in (0, 1))
    moments, reference = Moments.of(a), Gaussian.of(b)
    stored = (b.mean(0), torch.cov(b.T))

    def theirs() -> float:
        mean = moments.total / moments.count
        covariance = (moments.outer - moments.count * torch.outer(mean, mean)) / (moments.count - 1)
        return textbook(mean, covariance, *stored)

    return Pair(f"D = {D}, N = {2 * D}", "scipy sqrtm", lambda: frechet_distance(moments.gaussian(), reference), theirs)


def _low(D: int) -> Pair:
    a, b = (_features(D // 4, D, seed) for seed in (0, 1))
    reference, stored = Gaussian.of(b), (b.mean(0), torch.cov(b.T))
    # scipy's algorithm fails on a singular product, so implementations add a small ridge.
    ridge = 1e-10 * torch.eye(D, dtype=torch.float64)

    def theirs() -> float:
        return textbook(a.mean(0), torch.cov(a.T) + ridge, stored[0], stored[1] + ridge)

    return Pair(f"D = {D}, N = {D // 4}", "scipy sqrtm, ridge", lambda: frechet_distance(Gaussian.of(a), reference), theirs)
