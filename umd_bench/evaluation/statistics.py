"""Statistics of sets of features: streaming moments, the Fréchet distance, the inception score.

All in float64 on the CPU. Shapes: N samples, D features, R rank of a covariance, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umd_bench.config.errors import UserError


@dataclass(frozen=True)
class Moments:
    """Raw moments of samples seen so far: ``count``, ``total`` = sum x [D], ``outer`` = sum x x' [D, D], float64.

    Merging is addition, so parts may be computed anywhere and in any order.
    """

    count: int
    total: Tensor
    outer: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Moments:
        """Moments of ``features`` [N, D], any float type. Raises :class:`UserError` for another shape or a NaN or infinity."""
        x = _checked(features)
        return cls(len(x), x.sum(0), x.T @ x)

    def merged(self, other: Moments) -> Moments:
        """Moments of both sets together. Raises :class:`UserError` where the numbers of features differ."""
        _same_width(len(self.total), len(other.total))
        return Moments(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def gaussian(self) -> Gaussian:
        """The Gaussian with these moments; raises :class:`UserError` for fewer than two samples.

        The covariance's null space, which is large when N <= D, is known only to rounding: eigenvalues below what rounding can
        make of zero are dropped, since their square roots would be errors eight digits larger.
        """
        _enough(self.count)
        mean = self.total / self.count
        covariance = (self.outer - self.count * torch.outer(mean, mean)) / (self.count - 1)
        values, vectors = torch.linalg.eigh((covariance + covariance.T) / 2)
        scale = self.outer.diagonal().max() / (self.count - 1)  # of what was subtracted above
        kept = values > max(len(values), 10) * torch.finfo(torch.float64).eps * scale
        return Gaussian(self.count, mean, vectors[:, kept] * values[kept].sqrt())


@dataclass(frozen=True)
class Gaussian:
    """What a Fréchet distance needs of a set: ``mean`` [D] and ``factor`` [D, R] with ``covariance = factor factor'``."""

    count: int
    mean: Tensor
    factor: Tensor

    @classmethod
    def of(cls, features: Tensor) -> Gaussian:
        """The Gaussian of ``features`` [N, D]. Where N <= D the centred samples over sqrt(N - 1) are a factor already.

        Raises :class:`UserError` for another shape, a NaN or infinity, or fewer than two samples.
        """
        x = _checked(features)
        N, D = x.shape
        _enough(N)
        if N > D:
            return Moments.of(x).gaussian()
        mean = x.mean(0)
        return cls(N, mean, (x - mean).T / (N - 1) ** 0.5)


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """``|mu_a - mu_b|^2 + tr(S_a) + tr(S_b) - 2 tr sqrt(S_a S_b)`` (Dowson and Landau 1982; Heusel et al., arXiv 1706.08500).

    With ``S = L L'`` the last trace is the nuclear norm of ``L_a' L_b``, which is right for covariances of any rank, so also
    for fewer samples than features, and has no square root of a matrix in it: the distance of a set to itself is 0 to
    rounding. In squared units of the features. Raises :class:`UserError` where the numbers of features differ.
    """
    _same_width(len(a.mean), len(b.mean))
    cross = torch.linalg.svdvals(a.factor.T @ b.factor).sum()
    traces = a.factor.square().sum() + b.factor.square().sum()
    distance = float((a.mean - b.mean).square().sum() + traces - 2 * cross)
    return max(distance, 0.0)  # below 0 by rounding only


@dataclass(frozen=True)
class ClassSums:
    """What an inception score needs of samples seen so far, a row for each split: ``count`` [S], ``p`` = sum p(y|x) [S, K] and
    ``p_log_p`` = sum over x and y of p log p [S], float64.

    Merging is addition, so parts may be computed anywhere and in any order, and take no more room for more samples.
    """

    count: Tensor
    p: Tensor
    p_log_p: Tensor

    @classmethod
    def of(cls, logits: Tensor, index: Tensor, *, n: int, splits: int) -> ClassSums:
        """Sums of ``logits`` [B, K] of the samples ``index`` [B] (int64, 0..n-1) of a set of ``n``, parted in ``splits``.

        Split j holds the samples from ``j n // splits`` on. Raises :class:`UserError` for another shape, a NaN or infinity,
        and ``n < splits``.
        """
        log_p = _checked(logits).log_softmax(1)
        if not 1 <= splits <= n:
            raise UserError(f"an inception score of {n} samples in {splits} splits is not possible: expected 1..{n} splits")
        starts = torch.tensor([j * n // splits for j in range(splits)])
        split = torch.searchsorted(starts, index, right=True) - 1
        p = log_p.exp()
        zero = torch.zeros(splits, p.shape[1], dtype=torch.float64)
        return cls(
            torch.bincount(split, minlength=splits),
            zero.index_add(0, split, p),
            zero[:, 0].index_add(0, split, (p * log_p).sum(1)),
        )

    def merged(self, other: ClassSums) -> ClassSums:
        """Sums of both sets of samples. Raises :class:`UserError` where the numbers of classes differ."""
        _same_width(self.p.shape[1], other.p.shape[1])
        return ClassSums(self.count + other.count, self.p + other.p, self.p_log_p + other.p_log_p)

    def score(self) -> tuple[float, float]:
        """Mean and standard deviation over the splits of ``exp mean_x KL(p(y|x) || p(y))`` (Salimans et al., arXiv 1606.03498).

        ``p(y)`` is the split's own mean. Between 1 and K, and lower the smaller the splits are.
        """
        n = self.count.double()
        p_y = self.p / n[:, None]
        scores = (self.p_log_p / n - torch.xlogy(p_y, p_y).sum(1)).exp()
        return scores.mean().item(), scores.std(correction=0).item()


def inception_score(logits: Tensor, splits: int = 10) -> tuple[float, float]:
    """:meth:`ClassSums.score` of ``logits`` [N, K] in one piece, split in their order. Raises as :meth:`ClassSums.of`."""
    return ClassSums.of(logits, torch.arange(len(logits)), n=len(logits), splits=splits).score()


def _checked(x: Tensor) -> Tensor:
    if x.ndim != 2 or not x.is_floating_point():
        raise UserError(f"statistics of a {x.dtype} tensor of shape {list(x.shape)} are not possible: expected floats [N, D]")
    x = x.detach().to("cpu", torch.float64)
    if not x.isfinite().all():
        bad = int((~x.isfinite().all(1)).sum())
        raise UserError(f"{bad} of {len(x)} samples have features that are NaN or infinite: no statistics can be made of them")
    return x


def _enough(count: int) -> None:
    if count < 2:
        raise UserError(f"a covariance of {count} samples is not possible: expected at least 2")


def _same_width(a: int, b: int) -> None:
    if a != b:
        raise UserError(f"features of {a} and of {b} dimensions cannot be compared: expected the same extractor's")
