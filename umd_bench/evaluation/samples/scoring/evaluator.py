"""Scores sets of samples with one extractor against one reference, and turns the scores into metrics with facts.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.trial.data import SPLITS
from umd_bench.data.packs.pack import Pack
from umd_bench.evaluation.extractors.contract import Extractor
from umd_bench.evaluation.samples.scoring.accumulator import SampleAccumulator
from umd_bench.evaluation.samples.scoring.memorisation import TrainingDistance, training_distance
from umd_bench.evaluation.samples.scoring.reference import Floor, Reference, floor_distance, reference_from_file, reference_of
from umd_bench.evaluation.samples.scoring.scores import (
    ScoreInputs,
    SetScores,
    available_scores,
    check_reference,
    compute_scores,
    scores_needing,
)
from umd_bench.evaluation.stage_result import Fact

ByMetric = dict[str, dict[str, Fact]]


@dataclass(frozen=True)
class Evaluator:
    """An extractor, the ``scores`` it gives with their inputs, and the requested scores it cannot give (``left_out``).

    ``floor`` is None if the reference is a file or no Fréchet distance is scored. ``grey``: the images have one channel, which
    the extractor repeats to have RGB images.
    """

    extractor: Extractor
    scores: frozenset[str]
    left_out: tuple[str, ...]
    reference: Reference
    training: TrainingDistance | None
    floor: Floor | None
    grey: bool = False

    def accumulator(self, n: int, label: Tensor | None) -> SampleAccumulator:
        """An empty accumulator for ``n`` samples; ``label`` [n] int64 are their requested classes, None to skip accuracy."""
        return SampleAccumulator(self.extractor, n, self.scores, label)

    def score(self, samples: SampleAccumulator) -> SetScores:
        """The scores of one accumulated set. Raises :class:`UserError` if a sample is missing."""
        inputs = ScoreInputs(samples.compute(), self.reference, self.training, self.extractor.device)
        return compute_scores(inputs, self.scores)

    def facts(self) -> dict[str, Fact]:
        """Facts that hold for every score."""
        return {
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.hash,
            "extractor_accuracy": self.extractor.accuracy,
            "resize": self.extractor.resize + ("; grey repeated in three channels" if self.grey else ""),
            "reference_label": self.reference.label,
            "reference_hash": self.reference.hash,
            "reference_n": self.reference.n,
            "left_out": list(self.left_out),
        }

    def metrics(self, sets: Sequence[SetScores]) -> dict[str, float]:
        """Means over ``sets``, one set per sampling seed; with several sets also their standard deviation (``_sd``).

        The spread of a Fréchet distance comes from separate sets, because resampling one set would raise the distance.
        """
        metrics: dict[str, float] = {}
        for score in sets[0].values:
            values, name = [one.values[score] for one in sets], self.extractor.metric_name(score)
            metrics[name] = float(np.mean(values))
            if len(values) > 1:
                metrics[f"{name}_sd"] = float(np.std(values, ddof=1))
        if self.floor is not None and "fd" in self.scores:
            metrics[f"floor_{self.extractor.metric_name('fd')}"] = self.floor.distance
        return metrics

    def by_metric(self, sets: Sequence[SetScores]) -> ByMetric:
        """Facts of single metrics, taken from the first set."""
        return {self.extractor.metric_name(score): facts for score, facts in sets[0].facts.items()}


def evaluator_for(
    extractor: Extractor,
    pack: Pack,
    scores: Collection[str],
    reference: str,
    n: int,
    *,
    held_out: str = "test",
    sha256: str | None = None,
) -> Evaluator:
    """The evaluator of sets of ``n`` samples of ``pack``; ``reference`` is a split's name, or the path of a published file.

    ``held_out`` is a split that nothing is trained on. Its images set the radius of ``memorised``. They are also the images of
    the floor if the reference is "train"; if the reference is another split, the floor's images are training images.

    ``sha256`` is the expected hash of the published file, None to accept any. Raises :class:`UserError` for a file that is
    missing, has another hash or is of another extractor, and for a reference that lacks an input of a score.
    """
    available = available_scores(extractor, scores)
    split = reference if reference in SPLITS else None
    if split is not None:
        real = reference_of(pack, split, extractor, spatial=bool(scores_needing("spatial", available)))
    else:
        real = reference_from_file(Path(reference), extractor)
        if sha256 not in (None, real.hash):
            raise UserError(f"{reference} is another file than expected (SHA-256 {real.hash[:12]}, expected {sha256:.12})")
    check_reference(real, available)
    return Evaluator(
        extractor,
        available,
        tuple(sorted(set(scores) - available)),
        real,
        training=training_distance(pack, extractor, held_out) if scores_needing("training", available) else None,
        floor=floor_distance(pack, split, n, extractor, real=held_out if split == "train" else "train")
        if split is not None and "fd" in available
        else None,
        grey=extractor.repeats(pack.manifest.channels),
    )
