"""The few-shot probe's mathematics: a draw of shots, and ridge regression onto class targets in closed form.

Shapes: N images, D features, K classes. The protocol is the official implementation's (small-vision,
commit 3d4555b; its parts come from big_vision's few-shot evaluator).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umd_bench.config.errors import UserError

_STD_FLOOR = 1e-5
_ROWS = 2048  # scored at once: bounds the memory of raw pixels in float64


@dataclass(frozen=True)
class RidgeProbe:
    """A fitted probe: ``mean``, ``std`` [D] of its training features, ``weights`` [D + 1, K] (the last row is the bias's)."""

    mean: Tensor
    std: Tensor
    weights: Tensor
    bias: float

    def logits(self, features: Tensor) -> Tensor:
        """[N, D] any float type -> [N, K] float64, near 1 for the class and -1 for the others."""
        return _design(features.to(torch.float64), self.mean, self.std, self.bias) @ self.weights

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of rows whose largest logit is the label's, in [0, 1]; ``labels`` [N] int64."""
        parts = zip(torch.split(features, _ROWS), torch.split(labels, _ROWS), strict=True)
        return sum(int((self.logits(x).argmax(1) == y).sum()) for x, y in parts) / len(labels)


def fit_ridge(features: Tensor, labels: Tensor, *, classes: int, ridge: float = 1024.0, bias: float = 100.0) -> RidgeProbe:
    """``w = (X'X + ridge I)^-1 X'Y`` in float64, X the standardised features and the constant ``bias``, Y in {-1, 1}.

    ``features`` [N, D]; ``labels`` [N] int64 in 0..K-1. Standardised by ``features``' own mean and (population) std + 1e-5;
    the bias is regularised too. For N < D + 1 the dual ``X' (X X' + ridge I)^-1 Y`` is solved, which is equal and smaller.
    Raises :class:`UserError` where the features have a NaN or infinity, or the shapes and labels do not fit.
    """
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise UserError(f"a probe of features {list(features.shape)} and labels {list(labels.shape)}: expected [N, D] and [N]")
    if not features.isfinite().all():
        raise UserError("the features to probe are NaN or infinite: the weights they come from are no use")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UserError(f"labels {int(labels.min())}..{int(labels.max())} are not accepted: expected 0..{classes - 1}")
    x = features.to(torch.float64)
    mean, std = x.mean(0), x.std(0, correction=0) + _STD_FLOOR
    X = _design(x, mean, std, bias)
    Y = 2 * torch.nn.functional.one_hot(labels, classes).to(torch.float64) - 1
    N, D1 = X.shape
    weights = X.T @ _solve(X @ X.T, ridge, Y) if N < D1 else _solve(X.T @ X, ridge, X.T @ Y)
    return RidgeProbe(mean, std, weights, bias)


def draw_shots(labels: NDArray[np.int64], shots: Sequence[int], *, classes: int, seed: int) -> dict[int, NDArray[np.int64]]:
    """For each number of shots the indices of the drawn images, class by class: the first ones of a permutation of the class.

    ``labels`` [N]. The generator is ``numpy.random.default_rng(seed)``; a draw of fewer shots is part of one of more. A class
    with fewer images than shots gives all it has: compare the length with ``shots * classes``.
    """
    rng = np.random.default_rng(seed)
    order = [rng.permutation(np.flatnonzero(labels == label)) for label in range(classes)]
    return {k: np.concatenate([indices[:k] for indices in order]) for k in shots}


def _design(x: Tensor, mean: Tensor, std: Tensor, bias: float) -> Tensor:
    return torch.cat([(x - mean) / std, x.new_full((len(x), 1), bias)], dim=1)


def _solve(gram: Tensor, ridge: float, right: Tensor) -> Tensor:
    gram.diagonal().add_(ridge)
    return torch.cholesky_solve(right, torch.linalg.cholesky(gram))
