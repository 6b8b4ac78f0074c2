"""``umd-bench score``: scores a file of samples under one or several profiles, in one pass over the file.

Shapes: N samples in the file, n samples that a profile scores, B samples at once, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from umd_bench.config.documents.document import Document, Location
from umd_bench.config.documents.presets import load_profile
from umd_bench.config.documents.validation import validate
from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.data import DataConfig
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.data.datasets import data_facts
from umd_bench.data.open_data import open_data
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import pick_device
from umd_bench.evaluation.extractors.contract import Extractor, Features
from umd_bench.evaluation.extractors.registry import check_extractor, extractor_for, load_extractor
from umd_bench.evaluation.samples.sample_files import SampleFile, open_samples
from umd_bench.evaluation.samples.scoring.accumulator import SampleAccumulator
from umd_bench.evaluation.samples.scoring.evaluator import Evaluator, evaluator_for

_MISSING = "–"
# Facts in the table's first rows, and their names there.
_FACTS = {
    "n": "n",
    "extractor": "extractor",
    "extractor_hash": "extractor hash",
    "resize": "resize",
    "reference_label": "reference",
    "reference_hash": "reference hash",
    "reference_n": "reference n",
    "left_out": "not given by the extractor",
}


@dataclass(frozen=True)
class ProfileScores:
    """A profile's ``metrics`` with one extractor. ``facts`` hold for all metrics, ``by_metric`` has facts of single metrics."""

    profile: str
    metrics: dict[str, float]
    facts: dict[str, Any]
    by_metric: dict[str, dict[str, Any]]


def score_samples(
    path: Path,
    data: DataConfig,
    data_root: Path,
    profiles: Sequence[str],
    extractors: Sequence[str] = (),
    n: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[ProfileScores]:
    """Score the samples in ``path`` as samples of ``data`` with each of ``extractors`` (none: the data set's own).

    Scores ``n`` samples, or as many as each profile says. If the file has more, they are chosen at random with a fixed seed,
    since files can be sorted by class; a smaller choice is part of every larger one. ``progress(done, total)`` counts samples.
    Raises :class:`UserError`, before any feature is extracted, for a file that holds no samples or too few of them, and for
    images of another size than the data set's.
    """
    stages = {name: _stage(name, n) for name in profiles}
    facts = data_facts(data, root=data_root)
    names = list(dict.fromkeys(extractors)) or [extractor_for(facts, data_root)]
    for name in names:
        check_extractor(name, facts, path="--extractor", root=data_root)
    file = open_samples(path)
    for profile, stage in stages.items():
        if file.n < stage.n:
            raise UserError(
                f"{path} holds {file.n:,} samples, and {profile} scores {stage.n:,}: "
                f"give a file with as many, another --profile, or --n {file.n}"
            )
    pack = open_data(data, data_root)
    if (file.height, file.width) != (pack.manifest.size,) * 2:
        raise UserError(
            f"{path} holds images of {file.height}x{file.width}, but images of {pack.manifest.name} are "
            f"{pack.manifest.size}x{pack.manifest.size}: expected the same size"
        )
    device = pick_device("auto")
    order = np.random.default_rng(derive_seed(0, "score/choice")).permutation(file.n)
    with ExitStack() as stack:
        loaded = [load_extractor(name, device, images=pack) for name in names]
        scorers = [_ExtractorScorer.of(extractor, pack, stages, order, stack) for extractor in loaded]
        _read(file, pack, scorers, progress)
        return [scores for scorer in scorers for scores in scorer.scores()]


def scores_table(results: Sequence[ProfileScores], title: str) -> Table:
    """Facts and metrics in rows, with a column for each profile and extractor, so that different n never share a column."""
    several = len({scores.facts["extractor"] for scores in results}) > 1
    heads = [f"{scores.profile}\n{scores.facts['extractor']}" if several else scores.profile for scores in results]
    table = Table("", *heads, title=title, title_justify="left", box=None, pad_edge=False)
    for fact, name in _FACTS.items():
        values = [_shown(scores.facts.get(fact)) for scores in results]
        if any(value != _MISSING for value in values):
            table.add_row(name, *values, style="dim")
    for metric in dict.fromkeys(name for scores in results for name in scores.metrics):
        table.add_row(metric, *(f"{s.metrics[metric]:.4g}" if metric in s.metrics else _MISSING for s in results))
    return table


def scores_json(results: Sequence[ProfileScores]) -> list[dict[str, Any]]:
    """The scores at full precision, as plain values."""
    return [{"profile": s.profile, "metrics": s.metrics, "facts": s.facts, "by_metric": s.by_metric} for s in results]


@dataclass(frozen=True)
class _ProfileScorer:
    """One profile's evaluator and accumulator, and the numbers [n] of the samples it scores, ascending."""

    profile: str
    evaluator: Evaluator
    accumulator: SampleAccumulator
    chosen: NDArray[np.int64]


@dataclass(frozen=True)
class _ExtractorScorer:
    """One extractor, whose features are computed once for all profiles."""

    extractor: Extractor
    profiles: list[_ProfileScorer]

    @classmethod
    def of(
        cls, extractor: Extractor, pack: Pack, stages: dict[str, GenerateStage], order: NDArray[np.int64], stack: ExitStack
    ) -> _ExtractorScorer:
        """A scorer for each profile's stage; a profile of n samples takes the first n of ``order``."""
        profiles = []
        for profile, stage in stages.items():
            evaluator = evaluator_for(
                extractor,
                pack,
                stage.scores,
                stage.reference,
                stage.n,
                held_out=stage.held_out_split,
                sha256=stage.reference_sha256,
            )
            accumulator = evaluator.accumulator(stage.n, None)
            stack.callback(accumulator.close)
            profiles.append(_ProfileScorer(profile, evaluator, accumulator, np.sort(order[: stage.n])))
        return cls(extractor, profiles)

    def update(self, start: int, images: torch.Tensor) -> None:
        """Extract the features of the ``images`` [B, C, H, W] that any profile scores; the first image is sample ``start``."""
        stop = start + len(images)
        parts = [one.chosen[(one.chosen >= start) & (one.chosen < stop)] - start for one in self.profiles]
        union = np.unique(np.concatenate(parts))
        if len(union) == 0:
            return
        spatial = any(one.accumulator.needs_spatial for one in self.profiles)
        features = self.extractor.features(images[torch.from_numpy(union)], spatial=spatial)
        for one, part in zip(self.profiles, parts, strict=True):
            rows = torch.from_numpy(np.searchsorted(union, part))
            one.accumulator.update_features(
                _select(features, rows), torch.from_numpy(np.searchsorted(one.chosen, part + start))
            )

    def scores(self) -> list[ProfileScores]:
        results = []
        for one in self.profiles:
            sets = [one.evaluator.score(one.accumulator)]
            facts: dict[str, Any] = {"n": one.accumulator.n, **one.evaluator.facts()}
            results.append(ProfileScores(one.profile, one.evaluator.metrics(sets), facts, one.evaluator.by_metric(sets)))
        return results


def _read(file: SampleFile, pack: Pack, scorers: Sequence[_ExtractorScorer], progress: Callable[[int, int], None]) -> None:
    for start, images in file.batches(pack.manifest.channels):
        for scorer in scorers:
            scorer.update(start, images)
        progress(start + len(images), file.n)


def _stage(profile: str, n: int | None) -> GenerateStage:
    """The profile as a generate stage, with ``n`` samples if given."""
    document = Document({"parent": "none", "extractor": "none"}).over(load_profile(profile))
    if n is not None:
        document = document.patched(("n",), n, Location("--n"))
    return validate(GenerateStage, document)


def _select(features: Features, rows: torch.Tensor) -> Features:
    logits, spatial = (None if x is None else x[rows] for x in (features.logits, features.spatial))
    return Features(features.pooled[rows], logits, spatial)


def _shown(value: Any) -> str:
    if value is None or value == []:
        return _MISSING
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, int):
        return f"{value:,}"
    text = str(value)
    return text[:12] if len(text) == 64 else text  # a hash
