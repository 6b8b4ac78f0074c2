"""A set of samples as its scores need it: streamed through an extractor in any order, kept in sums and in rows on disk.

What is in memory does not grow with the number of samples. Parts of one set may be taken in by several workers and merged.

Shapes: N samples, B samples at once, C channels, H, W, D features, K classes, S spatial features.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

import numpy as np
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.loading import Extractor, Features
from umd_bench.evaluation.metrics.frechet import ClassSums, Moments
from umd_bench.evaluation.samples.scores import IS_SPLITS, NEEDS_LOGITS, NEEDS_ROWS, NEEDS_SPATIAL, SampleStats
from umd_bench.evaluation.storage.spool import Spool

Sums = TypeVar("Sums", Moments, ClassSums)


class SampleAccumulator:
    """Takes in samples 0..n-1 of a set, each once, and keeps what ``scores`` (scores.py) need of ``extractor``'s features.

    Raises :class:`UserError` for fewer than two samples, and where there is no room for rows on disk.
    ``label`` [n] int64 is the class that each sample was asked for, None where there are none.
    """

    def __init__(self, extractor: Extractor, n: int, scores: Collection[str], label: Tensor | None = None) -> None:
        if n < 2:
            raise UserError(f"scores of {n} samples are not possible: expected at least 2")
        self.extractor = extractor
        self.n = n
        self._scores = frozenset(scores)
        self._label = label
        self._seen = np.zeros(n, dtype=bool)
        self._moments: Moments | None = None
        self._spatial: Moments | None = None
        self._classes: ClassSums | None = None
        self._hits = 0
        self._rows = Spool(n, extractor.dim) if self._scores & NEEDS_ROWS else None

    @property
    def spatial(self) -> bool:
        """Whether spatial features are needed."""
        return bool(self._scores & NEEDS_SPATIAL)

    def add(self, images: Tensor, index: Tensor) -> None:
        """Take in the samples ``index`` [B] (int64): uint8 ``images`` [B, C, H, W].

        Raises as :meth:`Extractor.features` and :meth:`take` do.
        """
        self.take(self.extractor.features(images, spatial=self.spatial), index)

    def take(self, features: Features, index: Tensor) -> None:
        """Take in what the extractor made of the samples ``index`` [B].

        Raises :class:`UserError` for a NaN or infinity, and for a sample that is not one of the set or comes twice.
        """
        which = index.numpy()
        if len(which) != len(features.pooled):
            raise UserError(f"{len(features.pooled)} samples came with {len(which)} numbers: expected one each")
        if len(which) == 0:
            return
        self._expect(which)
        self._moments = _merged(self._moments, Moments.of(features.pooled))
        if self.spatial:
            assert features.spatial is not None  # the extractor refuses where it has none
            self._spatial = _merged(self._spatial, Moments.of(features.spatial))
        if self._scores & NEEDS_LOGITS:
            if features.logits is None:
                raise UserError(f"{self.extractor.name} has no classes: no inception score and no accuracy can be made of it")
            splits = min(IS_SPLITS, self.n)
            self._classes = _merged(self._classes, ClassSums.of(features.logits, index, n=self.n, splits=splits))
            if self._label is not None:
                self._hits += int((features.logits.argmax(1) == self._label[index]).sum())
        if self._rows is not None:
            self._rows.write(which, features.pooled.numpy())
        self._seen[which] = True

    def merge(self, other: SampleAccumulator) -> None:
        """Take over what another worker took in of the same set.

        Raises :class:`UserError` where both have a sample, and where it is of another set.
        """
        same = (self.extractor.name, self.extractor.hash, self.n, self._scores)
        if same != (other.extractor.name, other.extractor.hash, other.n, other._scores):
            raise UserError("parts of two sets cannot be merged: expected the same extractor, number of samples and scores")
        self._expect(np.flatnonzero(other._seen))
        self._moments = _merged(self._moments, other._moments)
        self._spatial = _merged(self._spatial, other._spatial)
        self._classes = _merged(self._classes, other._classes)
        self._hits += other._hits
        if self._rows is not None and other._rows is not None:
            self._rows.copy_from(other._rows)
        self._seen |= other._seen

    def kept(self) -> SampleStats:
        """What the scores are made of; :class:`UserError` where fewer samples came than the set has."""
        if not self._seen.all():
            missing = int(self._seen.argmin())
            raise UserError(
                f"{self.n:,} samples were asked for and only {int(self._seen.sum()):,} came: sample {missing} is missing"
            )
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
        """Give the room on disk back."""
        if self._rows is not None:
            self._rows.close()

    def _expect(self, index: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        outside = (index < 0) | (index >= self.n)
        if outside.any():
            raise UserError(f"sample {int(index[outside][0])} is not of this set: expected 0..{self.n - 1}")
        if self._seen[index].any() or len(np.unique(index)) < len(index):
            raise UserError("a sample came twice: expected each sample of the set once")


def _merged(a: Sums | None, b: Sums | None) -> Sums | None:
    return a if b is None else b if a is None else a.merged(b)
