"""The kernel inception distance: how far two sets of features are apart, without a Fréchet distance's bias in n.

Shapes: N, M samples, D features, m samples in a subset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.storage.spool import FeatureRows

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020  # torch-fidelity's default, so that its numbers are of the same subsets


@dataclass(frozen=True)
class KernelDistance:
    """The mean over ``subsets`` pairs of subsets of ``size``, and the standard deviation between these."""

    mean: float
    deviation: float
    subsets: int
    size: int


def kernel_distance(
    x: FeatureRows, y: FeatureRows, *, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = SEED
) -> KernelDistance:
    """The unbiased squared MMD of ``x`` [N, D] and ``y`` [M, D] under ``k(a, b) = (a'b / D + 1)^3``, in float64.

    Binkowski et al., arXiv 1801.01401, as the mean over seeded pairs of subsets drawn without replacement: about 0 for two
    sets from one distribution at any n, and below 0 as often as above. Where a set has fewer than ``size`` samples, subsets
    are as large as it; where both are, there is one pair. Raises :class:`UserError` for fewer than two samples and for sets
    of different width.
    """
    N, M = x.shape[0], y.shape[0]
    if x.shape[1] != y.shape[1]:
        raise UserError(f"features of {x.shape[1]} and of {y.shape[1]} dimensions have no distance: expected one extractor's")
    m = min(N, M, size)
    if m < 2:
        raise UserError(f"a kernel distance of {N} and {M} samples is not possible: expected at least 2 of each")
    pairs = 1 if N == M == m else subsets
    random = np.random.RandomState(seed)  # its stream never changes between versions of numpy
    distances = []
    for _ in range(pairs):
        a, b = (np.sort(random.choice(count, m, replace=False)) for count in (N, M))
        distances.append(_mmd(_rows(x, a), _rows(y, b)))
    return KernelDistance(float(np.mean(distances)), float(np.std(distances)), pairs, m)


def _mmd(x: Tensor, y: Tensor) -> float:
    m = len(x)
    k_xx, k_yy, k_xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
    within = k_xx.sum() - k_xx.trace() + k_yy.sum() - k_yy.trace()
    return float(within / (m * (m - 1)) - 2 * k_xy.sum() / m**2)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b.T / a.shape[1] + 1) ** 3


def _rows(features: FeatureRows, index: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Tensor:
    return torch.from_numpy(np.asarray(features[index], dtype=np.float64))
