"""The kernel inception distance (KID) between two sets of features, which has no bias in the number of samples.

Shapes: N, M samples, D features, m samples in a subset.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.metrics.checks import require_same_width
from umd_bench.evaluation.storage.rows import FeatureRows

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020  # torch-fidelity's default, so that both draw the same subsets


@dataclass(frozen=True)
class KernelDistance:
    """The mean over ``subsets`` pairs of subsets of ``size`` samples, and the standard deviation between the pairs."""

    mean: float
    deviation: float
    subsets: int
    size: int


def kernel_distance(
    x: FeatureRows, y: FeatureRows, *, subsets: int = SUBSETS, size: int = SUBSET_SIZE, seed: int = SEED
) -> KernelDistance:
    """The unbiased squared MMD of ``x`` [N, D] and ``y`` [M, D] under ``k(a, b) = (a'b / D + 1)^3``, in float64.

    The result is the mean over seeded pairs of subsets drawn without replacement (Binkowski et al., arXiv 1801.01401). For two
    sets from one distribution it is about 0 at any number of samples, and negative as often as positive. A subset has ``size``
    samples, or as many as the smaller set if that has fewer. If N = M <= ``size``, there is one pair. Raises
    :class:`UserError` for fewer than two samples and for sets of different width.
    """
    N, M = x.shape[0], y.shape[0]
    require_same_width(x.shape[1], y.shape[1])
    m = min(N, M, size)
    if m < 2:
        raise UserError(f"a kernel distance of {N} and {M} samples is not possible: expected at least 2 of each")
    pairs = 1 if N == M == m else subsets
    random = np.random.RandomState(seed)  # numpy never changes the stream of this generator
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
