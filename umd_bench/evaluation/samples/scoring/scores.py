"""The table of scores: for each, its inputs and the function that computes it from the statistics of a sample set.

A new score needs a row of :data:`SCORES`, a name in :data:`umd_bench.config.trial.generate_stage.ScoreName`, and a family in
:mod:`umd_bench.reporting.notation.metrics`, which gives it a title and an arrow.
Shapes: N samples, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Literal

import torch

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.contract import Extractor
from umd_bench.evaluation.metrics.fid_infinity import extrapolate
from umd_bench.evaluation.metrics.frechet import Gaussian, frechet_distance
from umd_bench.evaluation.metrics.inception_score import ClassSums
from umd_bench.evaluation.metrics.kid import kernel_distance
from umd_bench.evaluation.metrics.precision_recall import K, precision_recall
from umd_bench.evaluation.samples.scoring.memorisation import TrainingDistance, memorisation
from umd_bench.evaluation.samples.scoring.reference import Reference
from umd_bench.evaluation.stage_result import Fact
from umd_bench.evaluation.storage.rows import FeatureRows

IS_SPLITS = 10  # the official code divides 10,000 samples into 10 splits, ADM's evaluation 50,000 into 10

# rows: the features of every sample; logits: class scores of the samples; spatial: spatial features of samples and reference;
# reference_rows: the features of single real images; training: the training images and their radius
Need = Literal["rows", "logits", "spatial", "reference_rows", "training"]


@dataclass(frozen=True)
class SampleStats:
    """Statistics of a set of ``n`` samples. A field is None if no score needs it or it is unavailable.

    ``gaussian`` is fitted to the features, ``spatial`` to the spatial features. The inception score is computed from
    ``classes``. ``rows`` are the features [N, D]. ``hits`` is the number of samples for which the extractor predicts the
    requested class.
    """

    n: int
    gaussian: Gaussian
    spatial: Gaussian | None
    classes: ClassSums | None
    hits: int | None
    rows: FeatureRows | None


@dataclass(frozen=True)
class ScoreInputs:
    """Everything that a score may read; ``training`` is None unless a score needs it."""

    stats: SampleStats
    reference: Reference
    training: TrainingDistance | None
    device: torch.device

    @property
    def rows(self) -> FeatureRows:
        """The samples' features, for scores that need "rows"."""
        assert self.stats.rows is not None
        return self.stats.rows

    @property
    def reference_rows(self) -> FeatureRows:
        """Features of real images, for scores that need "reference_rows"."""
        assert self.reference.features is not None
        return self.reference.features


@dataclass(frozen=True)
class SetScores:
    """Scores of one set of samples.

    ``values``: score by name. ``facts``: for each score, details of how it was computed (subsets, splits, ...).
    ``nearest_pairs`` are (sample, training image, distance), nearest first.
    """

    values: dict[str, float] = field(default_factory=dict)
    facts: dict[str, dict[str, Fact]] = field(default_factory=dict)
    nearest_pairs: tuple[tuple[int, int, float], ...] = ()


def _fd(inputs: ScoreInputs) -> SetScores:
    return SetScores({"fd": frechet_distance(inputs.stats.gaussian, inputs.reference.gaussian)})


def _fd_inf(inputs: ScoreInputs) -> SetScores:
    line = extrapolate(inputs.rows, inputs.reference.gaussian)
    facts: dict[str, Fact] = {"points": list(line.n), "distances": list(line.distances), "slope": line.slope}
    return SetScores({"fd_inf": line.intercept}, {"fd_inf": facts})


def _kid(inputs: ScoreInputs) -> SetScores:
    kid = kernel_distance(inputs.rows, inputs.reference_rows)
    facts: dict[str, Fact] = {
        "subsets": kid.subsets,
        "subset_size": kid.size,
        "subsets_sd": kid.deviation,
        "reference_rows": inputs.reference_rows.shape[0],
    }
    return SetScores({"kid": kid.mean}, {"kid": facts})


def _inception_score(inputs: ScoreInputs) -> SetScores:
    assert inputs.stats.classes is not None
    score, deviation = inputs.stats.classes.score()
    return SetScores({"is": score}, {"is": {"splits": min(IS_SPLITS, inputs.stats.n), "splits_sd": deviation}})


def _accuracy(inputs: ScoreInputs) -> SetScores:
    """No value if the samples were requested without classes, or if the extractor's classifier has other classes."""
    hits = inputs.stats.hits
    return SetScores() if hits is None else SetScores({"accuracy": hits / inputs.stats.n})


def _precision_recall(inputs: ScoreInputs) -> SetScores:
    precision, recall = precision_recall(inputs.rows, inputs.reference_rows, device=inputs.device)
    rows = inputs.reference_rows.shape[0]
    facts: dict[str, dict[str, Fact]] = {name: {"k": K, "reference_rows": rows} for name in ("precision", "recall")}
    return SetScores({"precision": precision, "recall": recall}, facts)


def _sfid(inputs: ScoreInputs) -> SetScores:
    assert inputs.stats.spatial is not None
    assert inputs.reference.spatial is not None
    return SetScores({"sfid": frechet_distance(inputs.stats.spatial, inputs.reference.spatial)})


def _memorised(inputs: ScoreInputs) -> SetScores:
    training = inputs.training
    assert training is not None
    alarm = memorisation(inputs.rows, training, device=inputs.device)
    facts: dict[str, Fact] = {
        "expected": training.percentile / 100,
        "alarm_above": alarm.alarm_above,
        "held_out": training.split,
        "held_out_n": training.held_out,
    }
    return SetScores({"memorised": alarm.share}, {"memorised": facts}, alarm.nearest_pairs)


@dataclass(frozen=True)
class Score:
    """A row of the table."""

    compute: Callable[[ScoreInputs], SetScores]
    needs: frozenset[Need]


SCORES: dict[str, Score] = {
    "fd": Score(_fd, frozenset()),
    "fd_inf": Score(_fd_inf, frozenset({"rows"})),
    "kid": Score(_kid, frozenset({"rows", "reference_rows"})),
    "is": Score(_inception_score, frozenset({"logits"})),
    "accuracy": Score(_accuracy, frozenset({"logits"})),
    "precision_recall": Score(_precision_recall, frozenset({"rows", "reference_rows"})),
    "sfid": Score(_sfid, frozenset({"spatial"})),
    "memorised": Score(_memorised, frozenset({"rows", "training"})),
}


def compute_scores(inputs: ScoreInputs, scores: Collection[str]) -> SetScores:
    """The ``scores``, in the order of the table; :meth:`Extractor.metric_name` turns a score's name into its column's name.

    ``precision_recall`` gives two values. Raises :class:`UserError` if the reference lacks an input of a score.
    """
    check_reference(inputs.reference, scores)
    values: dict[str, float] = {}
    facts: dict[str, dict[str, Fact]] = {}
    nearest_pairs: tuple[tuple[int, int, float], ...] = ()
    for name, score in SCORES.items():
        if name in scores:
            part = score.compute(inputs)
            values |= part.values
            facts |= part.facts
            nearest_pairs += part.nearest_pairs
    return SetScores(values, facts, nearest_pairs)


def scores_needing(need: Need, scores: Collection[str]) -> frozenset[str]:
    """The scores among ``scores`` that need the input ``need``."""
    return frozenset(name for name in scores if need in SCORES[name].needs)


def check_reference(reference: Reference, scores: Collection[str]) -> None:
    """Raise :class:`UserError` if the reference lacks an input of a score."""
    lacking: frozenset[str] = frozenset()
    if reference.features is None:
        lacking |= scores_needing("reference_rows", scores)
    if reference.spatial is None:
        lacking |= scores_needing("spatial", scores)
    if lacking:
        raise UserError(
            f"{reference.label} has no images or features for {', '.join(sorted(lacking))}: "
            "leave these scores out, or give a reference that has them"
        )


def available_scores(extractor: Extractor, scores: Collection[str]) -> frozenset[str]:
    """The scores among ``scores`` that the extractor can give: some need class scores, others spatial features."""
    available = frozenset(scores)
    if not extractor.has_logits:
        available -= scores_needing("logits", scores)
    return available if extractor.spatial_dim is not None else available - scores_needing("spatial", scores)
