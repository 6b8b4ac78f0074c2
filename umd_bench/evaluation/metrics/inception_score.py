"""The inception score, from sums that can be streamed.

All in float64 on the CPU. Shapes: N samples, B samples at once, K classes, S splits.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.metrics.checks import checked_features, require_same_width


@dataclass(frozen=True)
class ClassSums:
    """Sums that an inception score needs, one row per split, float64.

    ``count`` [S] samples, ``p`` [S, K] = sum over x of p(y|x), ``p_log_p`` [S] = sum over x and y of p log p. Merging adds
    them, so parts may be computed anywhere and in any order, and memory does not grow with the number of samples.
    """

    count: Tensor
    p: Tensor
    p_log_p: Tensor

    @classmethod
    def of(cls, logits: Tensor, index: Tensor, *, n: int, splits: int) -> ClassSums:
        """Sums over the samples ``index`` [B] (int64, 0..n-1), whose logits are ``logits`` [B, K].

        The whole set has ``n`` samples in ``splits`` splits. Split j begins with sample ``j n // splits``. Raises
        :class:`UserError` for another shape, a NaN or infinity, and ``n < splits``.
        """
        log_p = checked_features(logits).log_softmax(1)
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
        """Sums of both sets of samples. Raises :class:`UserError` if the numbers of classes differ."""
        require_same_width(self.p.shape[1], other.p.shape[1])
        return ClassSums(self.count + other.count, self.p + other.p, self.p_log_p + other.p_log_p)

    def score(self) -> tuple[float, float]:
        """Mean and standard deviation over the splits of ``exp mean_x KL(p(y|x) || p(y))`` (Salimans et al., arXiv 1606.03498).

        ``p(y)`` is the mean over the split. The score is between 1 and K, and lower for smaller splits.
        """
        n = self.count.double()
        p_y = self.p / n[:, None]
        scores = (self.p_log_p / n - torch.xlogy(p_y, p_y).sum(1)).exp()
        return scores.mean().item(), scores.std(correction=0).item()


def inception_score(logits: Tensor, splits: int = 10) -> tuple[float, float]:
    """:meth:`ClassSums.score` of all ``logits`` [N, K] at once, split in their order. Raises as :meth:`ClassSums.of`."""
    return ClassSums.of(logits, torch.arange(len(logits)), n=len(logits), splits=splits).score()
