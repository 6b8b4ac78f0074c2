"""Nearest neighbours among features in blocks, so that memory does not grow with their number; precision and recall from them.

Shapes: Q queries, N candidates, D features. Distances are Euclidean, in float64.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.storage.spool import FeatureRows

K = 3  # Kynkaanniemi et al. and the ADM evaluation
_BLOCK = 2048


def nearest(
    queries: FeatureRows, among: FeatureRows, k: int, *, itself: bool = False, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Distances float64 [Q, k] to the k nearest of ``among`` [N, D], ascending, and their indices int64 [Q, k], on the CPU.

    With ``itself`` the two are one set, and no sample is its own neighbour. Raises :class:`UserError` for fewer than k
    candidates and for sets of different width.
    """
    _fit(queries, among)
    candidates = among.shape[0] - itself
    if candidates < k:
        raise UserError(f"{k} nearest neighbours among {candidates} samples are not possible: expected at least {k}")
    distances, indices = [], []
    for q in _starts(queries):
        x = _block(queries, q, device)
        best = torch.full((len(x), k), math.inf, dtype=torch.float64, device=device)
        index = torch.zeros((len(x), k), dtype=torch.int64, device=device)
        for n in _starts(among):
            squared = _squared(x, _block(among, n, device))
            if itself and q == n:
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
    """Precision: the share of samples inside the ball of any real image; recall: of real images inside that of any sample.

    A ball's radius is the distance to the k-th nearest neighbour in the own set (Kynkaanniemi et al., arXiv 1904.06991,
    equations 1 and 2). Both in [0, 1]; both depend on the numbers of samples. Raises as :func:`nearest`.
    """
    radii = [nearest(x, x, k, itself=True, device=device)[0][:, -1] for x in (real, samples)]
    return _covered(samples, real, radii[0], device), _covered(real, samples, radii[1], device)


def _covered(queries: FeatureRows, centres: FeatureRows, radius: Tensor, device: torch.device | str) -> float:
    """The share of queries that lie in a ball."""
    reach = radius.to(device).square()
    inside = 0
    for q in _starts(queries):
        x = _block(queries, q, device)
        found = torch.zeros(len(x), dtype=torch.bool, device=device)
        for n in _starts(centres):
            found |= (_squared(x, _block(centres, n, device)) <= reach[n : n + _BLOCK]).any(1)
        inside += int(found.sum())
    return inside / queries.shape[0]


def _squared(x: Tensor, y: Tensor) -> Tensor:
    """|x - y|^2 of all pairs; what rounding makes negative is 0."""
    cross = torch.addmm(y.square().sum(1), x, y.T, alpha=-2)  # and in place from here: one block at a time
    return cross.add_(x.square().sum(1)[:, None]).clamp_min_(0)


def _block(features: FeatureRows, start: int, device: torch.device | str) -> Tensor:
    return torch.from_numpy(np.array(features[start : start + _BLOCK], dtype=np.float64)).to(device)


def _starts(features: FeatureRows) -> range:
    return range(0, features.shape[0], _BLOCK)


def _fit(a: FeatureRows, b: FeatureRows) -> None:
    if a.shape[1] != b.shape[1]:
        raise UserError(f"features of {a.shape[1]} and of {b.shape[1]} dimensions have no distance: expected one extractor's")
