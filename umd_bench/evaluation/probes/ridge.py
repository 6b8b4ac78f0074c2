"""The few-shot probe: draws a few images per class, and fits ridge regression onto class targets in closed form.

The protocol is the official implementation's (small-vision, commit 3d4555b, after big_vision's few-shot evaluator).
Shapes: N images, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umd_bench.config.errors import UserError

_STD_FLOOR = 1e-5
_ONE_THREAD_FLOPS = 2e8  # about 10 ms of one thread; below that, several threads lose more time waiting than they save
_ROWS = 2048  # rows scored at once, which bounds the memory of raw pixels in float64


@dataclass(frozen=True)
class RidgeProbe:
    """A fitted probe: ``mean`` and ``std`` [D] of its training features, ``weights`` [D + 1, K] (the last row is the bias)."""

    mean: Tensor
    std: Tensor
    weights: Tensor
    bias: float

    def logits(self, features: Tensor) -> Tensor:
        """[N, D] of any float type -> [N, K] float64, near 1 for the image's class and near -1 for the others."""
        return _design(features.to(torch.float64), self.mean, self.std, self.bias) @ self.weights

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """The share of rows, in [0, 1], whose largest logit is the label's; ``labels`` [N] int64."""
        parts = zip(torch.split(features, _ROWS), torch.split(labels, _ROWS), strict=True)
        return sum(int((self.logits(x).argmax(1) == y).sum()) for x, y in parts) / len(labels)


def fit_ridge(features: Tensor, labels: Tensor, *, classes: int, ridge: float = 1024.0, bias: float = 100.0) -> RidgeProbe:
    """``w = (X'X + ridge I)^-1 X'Y`` in float64, X the standardised features and the constant ``bias``, Y in {-1, 1}.

    ``features`` [N, D]; ``labels`` [N] int64 in 0..K-1. Features are standardised by their own mean and (population) std +
    1e-5; the bias is regularised too. For N < D + 1 the dual ``X' (X X' + ridge I)^-1 Y`` is solved, which is smaller and has
    the same solution. Raises :class:`UserError` if a feature is NaN or infinite, or shapes and labels do not match.
    """
    with _threads(_flops(features)):
        mean, std, X, Y = _problem(features, labels, classes, bias)
        N, D1 = X.shape
        weights = X.T @ _solve(X @ X.T, ridge, Y) if N < D1 else _solve(X.T @ X, ridge, X.T @ Y)
    return RidgeProbe(mean, std, weights, bias)


@dataclass(frozen=True)
class RidgePath:
    """The probes of several regularisations ``ridges`` [R] on one set of shots, from one factorisation.

    ``loo`` [R] is the leave-one-out error of each: the mean squared error over images and classes if every image is predicted
    by the probe fitted to all other images. The mean and std of all shots standardise the features in each of these fits.
    """

    ridges: tuple[float, ...]
    loo: tuple[float, ...]
    mean: Tensor
    std: Tensor
    bias: float
    spectrum: Tensor  # [M] eigenvalues of the smaller Gram matrix
    basis: Tensor  # [D + 1, M]
    projected: Tensor  # [M, K]; the weights are basis diag(1 / (spectrum + ridge)) projected

    @property
    def best(self) -> int:
        """The index of the regularisation with the smallest ``loo``; of equal ones, the largest regularisation."""
        return min(range(len(self.ridges)), key=lambda r: (self.loo[r], -self.ridges[r]))

    def probe(self, r: int) -> RidgeProbe:
        """The probe fitted with ``ridges[r]``."""
        with _threads(2 * self.basis.numel() * self.projected.shape[1]):
            weights = self.basis @ (self.projected / (self.spectrum + self.ridges[r]).unsqueeze(1))
        return RidgeProbe(self.mean, self.std, weights, self.bias)


def fit_ridge_path(
    features: Tensor, labels: Tensor, *, classes: int, ridges: Sequence[float], bias: float = 100.0
) -> RidgePath:
    """:func:`fit_ridge` for all of ``ridges`` from one factorisation: ``X'X = V S V'``, or ``X X' = U S U'`` for N < D + 1.

    With ``G = X X' + ridge I``, the error of image i under the probe fitted to all other images is ``(G^-1 Y)_i / (G^-1)_ii``
    (Golub, Heath and Wahba, 1979), so that leave-one-out errors need no further fits. Raises as :func:`fit_ridge` does.
    """
    with _threads(_flops(features)):
        mean, std, X, Y = _problem(features, labels, classes, bias)
        N, D1 = X.shape
        if N < D1:
            spectrum, U = _eigh(X @ X.T)
            basis, projected = X.T @ U, U.T @ Y
            errors = [
                (U @ (projected / (spectrum + ridge).unsqueeze(1))) / (U**2 @ (1 / (spectrum + ridge))).unsqueeze(1)
                for ridge in ridges
            ]
        else:
            spectrum, basis = _eigh(X.T @ X)
            projected, Z = basis.T @ (X.T @ Y), X @ basis
            errors = [
                (Y - Z @ (projected / (spectrum + ridge).unsqueeze(1))) / (1 - Z**2 @ (1 / (spectrum + ridge))).unsqueeze(1)
                for ridge in ridges
            ]
        loo = tuple(float((error**2).mean()) for error in errors)
    return RidgePath(tuple(ridges), loo, mean, std, bias, spectrum, basis, projected)


def draw_shots(labels: NDArray[np.int64], shots: Sequence[int], *, classes: int, seed: int) -> dict[int, NDArray[np.int64]]:
    """For each number of shots, the indices of the drawn images, class by class.

    ``labels`` [N]. ``numpy.random.default_rng(seed)`` permutes the images of each class, and the first ones are drawn. So a
    draw of fewer shots is a subset of a draw of more. If a class has fewer images than shots, all of them are drawn, and the
    result is shorter than ``shots * classes``.
    """
    rng = np.random.default_rng(seed)
    order = [rng.permutation(np.flatnonzero(labels == label)) for label in range(classes)]
    return {k: np.concatenate([indices[:k] for indices in order]) for k in shots}


def _flops(features: Tensor) -> float:
    """Roughly the cost of a fit: the smaller Gram matrix and its eigenvectors. 0 for a wrong shape, which is an error later."""
    if features.ndim != 2:
        return 0.0
    N, D = features.shape
    M = min(N, D + 1)
    return 2.0 * N * (D + 1) * M + 9.0 * M**3


@contextmanager
def _threads(flops: float) -> Iterator[None]:
    """Run small work on one thread.

    A factorisation consists of hundreds of short parallel regions, each as slow as its slowest thread. On a busy machine, a
    thread that waits for its core costs milliseconds in every region.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1 if flops < _ONE_THREAD_FLOPS else before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _problem(features: Tensor, labels: Tensor, classes: int, bias: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Mean and std [D] of the features, the design X [N, D + 1] and the targets Y [N, K], float64."""
    if features.ndim != 2 or labels.shape != features.shape[:1] or not len(labels):
        raise UserError(f"a probe of features {list(features.shape)} and labels {list(labels.shape)}: expected [N, D] and [N]")
    if not features.isfinite().all():
        raise UserError("the features to probe are NaN or infinite, so their weights cannot be used")
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise UserError(f"labels {int(labels.min())}..{int(labels.max())} are not accepted: expected 0..{classes - 1}")
    x = features.to(torch.float64)
    mean, std = x.mean(0), x.std(0, correction=0) + _STD_FLOOR
    Y = 2 * torch.nn.functional.one_hot(labels, classes).to(torch.float64) - 1
    return mean, std, _design(x, mean, std, bias), Y


def _design(x: Tensor, mean: Tensor, std: Tensor, bias: float) -> Tensor:
    return torch.cat([(x - mean) / std, x.new_full((len(x), 1), bias)], dim=1)


def _solve(gram: Tensor, ridge: float, right: Tensor) -> Tensor:
    gram.diagonal().add_(ridge)
    return torch.cholesky_solve(right, torch.linalg.cholesky(gram))


def _eigh(gram: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues (rounding below 0 becomes 0) and eigenvectors of a Gram matrix."""
    spectrum, vectors = torch.linalg.eigh(gram)
    return spectrum.clamp_min(0), vectors
