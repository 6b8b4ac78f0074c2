"""The scores of a set of samples: which there are, what each needs, and how it is made of what was kept of the set.

A new score is a name in :data:`umd_bench.config.trial.generate_stage.ScoreName`, a line in :func:`scores_of` and, where it
needs more
than moments, in the sets below. Shapes: N samples, D features.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors.loading import Extractor
from umd_bench.evaluation.metrics.fid_infinity import extrapolate
from umd_bench.evaluation.metrics.frechet import ClassSums, Gaussian, frechet_distance
from umd_bench.evaluation.metrics.kid import kernel_distance
from umd_bench.evaluation.metrics.precision_recall import K, precision_recall
from umd_bench.evaluation.samples.memorisation import Memory, memorised
from umd_bench.evaluation.samples.reference import Reference
from umd_bench.evaluation.stage_result import Fact
from umd_bench.evaluation.storage.spool import FeatureRows

IS_SPLITS = 10  # of 10,000 samples as the official code has it, and of 50,000 splits of 5,000 as ADM's evaluation has it
NEEDS_ROWS = frozenset({"fd_inf", "kid", "precision_recall", "memorised"})
NEEDS_LOGITS = frozenset({"is", "accuracy"})
NEEDS_SPATIAL = frozenset({"sfid"})
NEEDS_REAL_ROWS = frozenset({"kid", "precision_recall"})


@dataclass(frozen=True)
class SampleStats:
    """What is kept of a set of ``n`` samples; None is what no score asked for, or what there is not.

    ``gaussian`` of the features and ``spatial`` of the spatial ones, ``classes`` the sums of an inception score, ``hits`` how
    many samples the extractor reads as the class they were asked for, ``rows`` the features [N, D].
    """

    n: int
    gaussian: Gaussian
    spatial: Gaussian | None
    classes: ClassSums | None
    hits: int | None
    rows: FeatureRows | None


@dataclass(frozen=True)
class Scored:
    """``values`` by score, ``facts`` of single scores that say what they are, and the sample of each nearest training image."""

    values: dict[str, float]
    facts: dict[str, dict[str, Fact]]
    closest: tuple[tuple[int, int, float], ...] = ()


def scores_of(
    kept: SampleStats, reference: Reference, extractor: Extractor, scores: Collection[str], memory: Memory | None = None
) -> Scored:
    """``scores`` of what was ``kept``, under names that :func:`column` completes.

    ``precision_recall`` is two values, ``accuracy`` is there where samples were asked for a class that the extractor reads, and
    ``memorised`` needs ``memory``. Raises :class:`UserError` for a score that the reference cannot serve.
    """
    check_reference(reference, scores)
    values: dict[str, float] = {}
    facts: dict[str, dict[str, Fact]] = {}
    closest: tuple[tuple[int, int, float], ...] = ()
    real, rows = reference.features, kept.rows
    if "fd" in scores:
        values["fd"] = frechet_distance(kept.gaussian, reference.gaussian)
    if "fd_inf" in scores:
        assert rows is not None
        line = extrapolate(rows, reference.gaussian)
        values["fd_inf"] = line.intercept
        facts["fd_inf"] = {"points": list(line.n), "distances": list(line.distances), "slope": line.slope}
    if "kid" in scores:
        assert rows is not None
        assert real is not None
        kid = kernel_distance(rows, real)
        values["kid"] = kid.mean
        facts["kid"] = {
            "subsets": kid.subsets,
            "subset_size": kid.size,
            "subsets_sd": kid.deviation,
            "reference_rows": len(real),
        }
    if "is" in scores:
        assert kept.classes is not None
        values["is"], facts_sd = kept.classes.score()
        facts["is"] = {"splits": min(IS_SPLITS, kept.n), "splits_sd": facts_sd}
    if "accuracy" in scores and kept.hits is not None:
        values["accuracy"] = kept.hits / kept.n
    if "precision_recall" in scores:
        assert rows is not None
        assert real is not None
        values["precision"], values["recall"] = precision_recall(rows, real, device=extractor.device)
        facts |= {name: {"k": K, "reference_rows": len(real)} for name in ("precision", "recall")}
    if "sfid" in scores:
        assert kept.spatial is not None
        assert reference.spatial is not None
        values["sfid"] = frechet_distance(kept.spatial, reference.spatial)
    if "memorised" in scores:
        assert rows is not None
        assert memory is not None
        found = memorised(rows, memory, device=extractor.device)
        values["memorised"], closest = found.share, found.closest
        facts["memorised"] = {
            "expected": memory.percentile / 100,
            "alarm_above": found.alarm_above,
            "held_out_n": memory.held_out,
        }
    return Scored(values, facts, closest)


def check_reference(reference: Reference, scores: Collection[str]) -> None:
    """Raise :class:`UserError` where the reference lacks what a score needs."""
    lacking = set(scores) & NEEDS_REAL_ROWS if reference.features is None else set()
    if reference.spatial is None:
        lacking |= set(scores) & NEEDS_SPATIAL
    if lacking:
        raise UserError(
            f"{reference.label} has no images or features for {', '.join(sorted(lacking))}: "
            "leave these scores out, or give a reference that has them"
        )


def given_by(extractor: Extractor, scores: Collection[str]) -> frozenset[str]:
    """Those of ``scores`` that the extractor can give: of classes where it reads classes, of places where it has them."""
    given = frozenset(scores)
    if not extractor.has_logits:
        given -= NEEDS_LOGITS
    return given if extractor.spatial_dim is not None else given - NEEDS_SPATIAL


def column(extractor: Extractor, score: str) -> str:
    """The metric's name: ``fd`` is ``fid``, and ``fd_inf`` ``fid_inf``, with the features FID is defined by, and only then."""
    frechet = extractor.metric("fd")
    if score == "fd_inf" and frechet == "fid":
        return "fid_inf"
    return frechet if score == "fd" else extractor.metric(score)
