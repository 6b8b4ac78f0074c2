"""Statistics of a set of samples, accumulated batch by batch in any order, by one worker or by several.

Memory does not grow with the number of samples: sums stay in memory, rows of features go to disk.

Shapes: N samples, B samples at once, C channels, H, W, D features, K classes, S spatial features.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

import numpy as np
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.contract import Extractor, Features
from umd_bench.evaluation.metrics.frechet import Moments
from umd_bench.evaluation.metrics.inception_score import ClassSums
from umd_bench.evaluation.samples.scoring.scores import IS_SPLITS, SampleStats, scores_needing
from umd_bench.evaluation.storage.temporary_rows import TemporaryRows

Sums = TypeVar("Sums", Moments, ClassSums)


class SampleAccumulator:
    """Accumulates the statistics of samples 0..n-1 that ``scores`` need; each sample is added once.

    ``label`` [n] int64 is the class requested for each sample, None if there is none. Raises :class:`UserError` for fewer than
    two samples, and if there is no room for rows on disk.
    """

    def __init__(self, extractor: Extractor, n: int, scores: Collection[str], label: Tensor | None = None) -> None:
        if n < 2:
            raise UserError(f"scores of {n} samples are not possible: expected at least 2")
        self.extractor = extractor
        self.n = n
        self.needs_spatial = bool(scores_needing("spatial", scores))
        self._needs_logits = bool(scores_needing("logits", scores))
        self._scores = frozenset(scores)
        self._label = label
        self._seen = np.zeros(n, dtype=bool)
        self._moments: Moments | None = None
        self._spatial: Moments | None = None
        self._classes: ClassSums | None = None
        self._hits = 0
        self._rows = TemporaryRows(n, extractor.dim) if scores_needing("rows", scores) else None

    def update(self, images: Tensor, index: Tensor) -> None:
        """Add the samples ``index`` [B] (int64): uint8 ``images`` [B, C, H, W].

        Raises as :meth:`Extractor.features` and :meth:`update_features` do.
        """
        self.update_features(self.extractor.features(images, spatial=self.needs_spatial), index)

    def update_features(self, features: Features, index: Tensor) -> None:
        """Add the samples ``index`` [B] (int64), whose features were extracted before.

        Raises :class:`UserError` for a NaN or infinity, and for a sample that is outside of the set or was added before.
        """
        rows = index.numpy()
        if len(rows) != len(features.pooled):
            raise UserError(f"{len(features.pooled)} samples came with {len(rows)} numbers: expected one number per sample")
        if len(rows) == 0:
            return
        self._check_new(rows)
        self._moments = _merged(self._moments, Moments.of(features.pooled))
        if self.needs_spatial:
            assert features.spatial is not None  # the extractor refuses if it has none
            self._spatial = _merged(self._spatial, Moments.of(features.spatial))
        if self._needs_logits:
            if features.logits is None:
                raise UserError(f"{self.extractor.name} gives no class scores, which the inception score and accuracy need")
            splits = min(IS_SPLITS, self.n)
            self._classes = _merged(self._classes, ClassSums.of(features.logits, index, n=self.n, splits=splits))
            if self._label is not None:
                self._hits += int((features.logits.argmax(1) == self._label[index]).sum())
        if self._rows is not None:
            self._rows.write(rows, features.pooled.numpy())
        self._seen[rows] = True

    def merge(self, other: SampleAccumulator) -> None:
        """Add the samples of the same set that another worker accumulated.

        Raises :class:`UserError` if a sample is in both, or if the sets differ.
        """
        same = (self.extractor.name, self.extractor.hash, self.n, self._scores)
        if same != (other.extractor.name, other.extractor.hash, other.n, other._scores):
            raise UserError("parts of two sets cannot be merged: expected the same extractor, number of samples and scores")
        self._check_new(np.flatnonzero(other._seen))
        self._moments = _merged(self._moments, other._moments)
        self._spatial = _merged(self._spatial, other._spatial)
        self._classes = _merged(self._classes, other._classes)
        self._hits += other._hits
        if self._rows is not None and other._rows is not None:
            self._rows.copy_from(other._rows)
        self._seen |= other._seen

    def compute(self) -> SampleStats:
        """The statistics of the whole set. Raises :class:`UserError` if a sample is missing."""
        if not self._seen.all():
            missing = int(self._seen.argmin())
            raise UserError(f"only {int(self._seen.sum()):,} of {self.n:,} samples came: sample {missing} is missing")
        assert self._moments is not None  # n >= 2
        return SampleStats(
            n=self.n,
            gaussian=self._moments.gaussian(),
            spatial=None if self._spatial is None else self._spatial.gaussian(),
            classes=self._classes,
            hits=None if self._label is None else self._hits,
            rows=self._rows,
        )

    def close(self) -> None:
        """Free the space on disk."""
        if self._rows is not None:
            self._rows.close()

    def _check_new(self, index: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        outside = (index < 0) | (index >= self.n)
        if outside.any():
            raise UserError(f"sample {int(index[outside][0])} is not of this set: expected 0..{self.n - 1}")
        if self._seen[index].any() or len(np.unique(index)) < len(index):
            raise UserError("a sample came twice: expected each sample of the set once")


def _merged(a: Sums | None, b: Sums | None) -> Sums | None:
    return a if b is None else b if a is None else a.merged(b)
