"""One extractor with what its features are held against: from sets of samples to metrics that say what they are.

Shapes: N samples.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.trial.generate_stage import SPLITS
from umd_bench.data.packs.pack import Pack
from umd_bench.evaluation.extractors.loading import Extractor
from umd_bench.evaluation.samples.accumulator import SampleAccumulator
from umd_bench.evaluation.samples.memorisation import Memory, memory_of
from umd_bench.evaluation.samples.reference import Floor, Reference, floor_distance, reference_from_file, reference_of
from umd_bench.evaluation.samples.scores import NEEDS_SPATIAL, Scored, check_reference, column, given_by, scores_of
from umd_bench.evaluation.stage_result import Fact

ByMetric = dict[str, dict[str, Fact]]


@dataclass(frozen=True)
class Evaluator:
    """An extractor, the ``scores`` that it can give, those it cannot (``left_out``), and what they need.

    ``floor`` is None for a reference that is a file.
    """

    extractor: Extractor
    scores: frozenset[str]
    left_out: tuple[str, ...]
    reference: Reference
    memory: Memory | None
    floor: Floor | None

    def scorer(self, n: int, label: Tensor | None) -> SampleAccumulator:
        """What takes in ``n`` samples that were asked for the classes ``label`` [n], None where that cannot be judged."""
        return SampleAccumulator(self.extractor, n, self.scores, label)

    def scored(self, scorer: SampleAccumulator) -> Scored:
        """The scores of a set that was taken in. Raises :class:`UserError` where some of it is missing."""
        return scores_of(scorer.kept(), self.reference, self.extractor, self.scores, self.memory)

    def facts(self) -> dict[str, Fact]:
        """What is true of every one of the scores."""
        return {
            "extractor": self.extractor.name,
            "extractor_hash": self.extractor.hash,
            "resize": self.extractor.resize,
            "reference_label": self.reference.label,
            "reference_hash": self.reference.hash,
            "reference_n": self.reference.n,
            "left_out": list(self.left_out),
        }

    def metrics(self, sets: Sequence[Scored]) -> dict[str, float]:
        """The means over ``sets``, one of each sampling seed; ``_sd`` their standard deviation where there are several.

        A Fréchet distance's interval comes from such sets alone: resampling one set would raise it.
        """
        found: dict[str, float] = {}
        for score in sets[0].values:
            values, name = [scored.values[score] for scored in sets], column(self.extractor, score)
            found[name] = float(np.mean(values))
            if len(values) > 1:
                found[f"{name}_sd"] = float(np.std(values, ddof=1))
        if self.floor is not None and "fd" in self.scores:
            found[f"floor_{column(self.extractor, 'fd')}"] = self.floor.distance
        return found

    def by_metric(self, sets: Sequence[Scored]) -> ByMetric:
        """What is true of single scores, of the first sampling seed where seeds differ."""
        return {column(self.extractor, score): facts for score, facts in sets[0].facts.items()}


def evaluator_for(
    extractor: Extractor, pack: Pack, scores: Collection[str], reference: str, n: int, *, sha256: str | None = None
) -> Evaluator:
    """What ``n`` samples of ``pack`` are scored by: ``reference`` is "train", "test" or the path of a published file.

    ``sha256`` is what the file must be. Raises :class:`UserError` for a file that is missing, another, or of another
    extractor, and for a score that the reference cannot serve.
    """
    given = given_by(extractor, scores)
    split = reference if reference in SPLITS else None
    if split is not None:
        real = reference_of(pack, split, extractor, spatial=bool(given & NEEDS_SPATIAL))
    else:
        real = reference_from_file(Path(reference), extractor)
        if sha256 not in (None, real.hash):
            raise UserError(f"{reference} is another file than was asked for (SHA-256 {real.hash[:12]}, expected {sha256:.12})")
    check_reference(real, given)
    return Evaluator(
        extractor,
        given,
        tuple(sorted(set(scores) - given)),
        real,
        memory=memory_of(pack, extractor) if "memorised" in given else None,
        floor=floor_distance(pack, split, n, extractor) if split is not None and "fd" in given else None,
    )
