"""Precision and recall of samples, from nearest neighbours, which are found block by block: memory does not grow with N.

Shapes: Q queries, N candidates, D features. Distances are Euclidean, in float64.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.metrics.checks import require_same_width
from umd_bench.evaluation.storage.rows import FeatureRows

K = 3  # Kynkaanniemi et al. and the ADM evaluation
_BLOCK = 2048


def euclidean_neighbours(
    queries: FeatureRows,
    candidates: FeatureRows,
    k: int,
    *,
    exclude_self: bool = False,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Distances float64 [Q, k] to the k nearest of ``candidates`` [N, D], ascending, and their indices int64 [Q, k].

    Both tensors are on the CPU. With ``exclude_self``, queries and candidates are one set, and no sample is its own neighbour.
    Raises :class:`UserError` for fewer than k candidates and for sets of different width.
    """
    require_same_width(queries.shape[1], candidates.shape[1])
    available = candidates.shape[0] - exclude_self
    if available < k:
        raise UserError(f"{k} nearest neighbours among {available} samples are not possible: expected at least {k}")
    distances, indices = [], []
    for q in _starts(queries):
        x = _block(queries, q, device)
        best = torch.full((len(x), k), math.inf, dtype=torch.float64, device=device)
        index = torch.zeros((len(x), k), dtype=torch.int64, device=device)
        for n in _starts(candidates):
            squared = _squared_distances(x, _block(candidates, n, device))
            if exclude_self and q == n:
                squared.fill_diagonal_(math.inf)
            near = squared.topk(min(k, squared.shape[1]), largest=False)
            best, order = torch.cat([best, near.values], 1).topk(k, largest=False)
            index = torch.cat([index, near.indices + n], 1).gather(1, order)
        distances.append(best.sqrt().cpu())
        indices.append(index.cpu())
    return torch.cat(distances), torch.cat(indices)


def precision_recall(
    samples: FeatureRows, real: FeatureRows, k: int = K, *, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Precision: the share of samples inside the ball of a real image. Recall: the share of real images inside a sample's ball.

    The radius of a ball is the distance to the k-th nearest neighbour in the same set (Kynkaanniemi et al., arXiv 1904.06991,
    equations 1 and 2). Both are in [0, 1] and depend on the numbers of samples. Raises as :func:`euclidean_neighbours`.
    """
    radii = [euclidean_neighbours(x, x, k, exclude_self=True, device=device)[0][:, -1] for x in (real, samples)]
    return _covered(samples, real, radii[0], device), _covered(real, samples, radii[1], device)


def _covered(queries: FeatureRows, centres: FeatureRows, radius: Tensor, device: torch.device | str) -> float:
    """The share of queries that lie in at least one ball."""
    squared_radius = radius.to(device).square()
    inside = 0
    for q in _starts(queries):
        x = _block(queries, q, device)
        covered = torch.zeros(len(x), dtype=torch.bool, device=device)
        for n in _starts(centres):
            squared = _squared_distances(x, _block(centres, n, device))
            covered |= (squared <= squared_radius[n : n + _BLOCK]).any(1)
        inside += int(covered.sum())
    return inside / queries.shape[0]


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x - y|^2 of all pairs; a value that rounding makes negative becomes 0."""
    cross = torch.addmm(y.square().sum(1), x, y.T, alpha=-2)  # in place from here on: one block in memory at a time
    return cross.add_(x.square().sum(1)[:, None]).clamp_min_(0)


def _block(features: FeatureRows, start: int, device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.array(features[start : start + _BLOCK], dtype=np.float64)).to(device)


def _starts(features: FeatureRows) -> range:
    return range(0, features.shape[0], _BLOCK)
