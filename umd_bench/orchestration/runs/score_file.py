"""A set of samples that lies in a file, scored under one or several profiles in one pass over it.

Shapes: N samples, B samples at once, C channels, H, W.
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

from umd_bench.config.documents.document import Document, Place
from umd_bench.config.documents.validation import validate
from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.sweep.score_profiles import load_profile
from umd_bench.config.trial.data import DataConfig
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.data.datasets import data_facts
from umd_bench.data.packs.pack import Pack, open_data
from umd_bench.engine.device import pick_device
from umd_bench.evaluation.extractors.loading import Extractor, Features, load_extractor
from umd_bench.evaluation.extractors.registry import check_extractor, extractor_for
from umd_bench.evaluation.samples.accumulator import SampleAccumulator
from umd_bench.evaluation.samples.evaluator import Evaluator, evaluator_for
from umd_bench.evaluation.samples.sample_files import SampleFile, open_samples

_MISSING = "–"
# What is said of every score, in this order, under these names.
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
    """A profile's scores with one extractor: ``metrics``, the ``facts`` of them all, ``by_metric`` those of single ones."""

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
    """Score the samples at ``path`` as samples of ``data``, by each of ``extractors`` (the data set's own where none is named).

    ``n`` samples are scored, or as many as each profile says; of a larger file a seeded choice, so that a file in the order of
    its classes is no trap, with smaller choices inside of larger ones. ``progress`` is told samples done and in all.
    Raises :class:`UserError`, before anything is extracted, for a file that is none, holds fewer samples than asked, or has
    images of another size than the data set's.
    """
    stages = {name: _stage(name, n) for name in profiles}
    names = list(dict.fromkeys(extractors)) or [extractor_for(data.name)]
    for name in names:
        check_extractor(name, data_facts(data, root=data_root), path="--extractor")
    file = open_samples(path)
    for profile, stage in stages.items():
        if file.n < stage.n:
            raise UserError(
                f"{path} holds {file.n:,} samples, and {profile} scores {stage.n:,}: "
                f"give as many, another --profile, or --n {file.n}"
            )
    pack = open_data(data, data_root)
    if (file.height, file.width) != (pack.manifest.size,) * 2:
        raise UserError(
            f"{path} holds images of {file.height}x{file.width}, those of {pack.manifest.name} are "
            f"{pack.manifest.size}x{pack.manifest.size}: expected the same size"
        )
    device = pick_device("auto")
    order = np.random.default_rng(derive_seed(0, "score/choice")).permutation(file.n)
    with ExitStack() as closing:
        takers = [_Taker.of(load_extractor(name, device), pack, stages, order, closing) for name in names]
        _read(file, pack, takers, progress)
        return [scores for taker in takers for scores in taker.scores()]


def scores_table(found: Sequence[ProfileScores], title: str) -> Table:
    """What the scores are and what they came to, a column for each profile and extractor: different n never share one."""
    several = len({scores.facts["extractor"] for scores in found}) > 1
    heads = [f"{scores.profile}\n{scores.facts['extractor']}" if several else scores.profile for scores in found]
    table = Table("", *heads, title=title, title_justify="left", box=None, pad_edge=False)
    for fact, name in _FACTS.items():
        values = [_shown(scores.facts.get(fact)) for scores in found]
        if any(value != _MISSING for value in values):
            table.add_row(name, *values, style="dim")
    for metric in dict.fromkeys(name for scores in found for name in scores.metrics):
        table.add_row(metric, *(f"{s.metrics[metric]:.4g}" if metric in s.metrics else _MISSING for s in found))
    return table


def scores_json(found: Sequence[ProfileScores]) -> list[dict[str, Any]]:
    """The same, in full, as plain values."""
    return [{"profile": s.profile, "metrics": s.metrics, "facts": s.facts, "by_metric": s.by_metric} for s in found]


@dataclass(frozen=True)
class _Taker:
    """An extractor, and for each profile its judge, its scorer and the ascending numbers [n] of the samples it takes."""

    extractor: Extractor
    judged: list[tuple[str, Evaluator, SampleAccumulator, NDArray[np.int64]]]

    @classmethod
    def of(
        cls, extractor: Extractor, pack: Pack, stages: dict[str, GenerateStage], order: NDArray[np.int64], closing: ExitStack
    ) -> _Taker:
        judged = []
        for profile, stage in stages.items():
            judge = evaluator_for(extractor, pack, stage.scores, stage.reference, stage.n, sha256=stage.reference_sha256)
            scorer = judge.scorer(stage.n, None)
            closing.callback(scorer.close)
            judged.append((profile, judge, scorer, np.sort(order[: stage.n])))
        return cls(extractor, judged)

    def take(self, start: int, images: torch.Tensor) -> None:
        """Extract once what any profile takes of the ``images`` [B, C, H, W] from sample ``start`` on."""
        chosen = [taken[(taken >= start) & (taken < start + len(images))] - start for *_, taken in self.judged]
        wanted = np.unique(np.concatenate(chosen))
        if len(wanted) == 0:
            return
        spatial = any(scorer.spatial for _, _, scorer, _ in self.judged)
        features = self.extractor.features(images[torch.from_numpy(wanted)], spatial=spatial)
        for (_, _, scorer, taken), here in zip(self.judged, chosen, strict=True):
            rows = torch.from_numpy(np.searchsorted(wanted, here))
            scorer.take(_rows(features, rows), torch.from_numpy(np.searchsorted(taken, here + start)))

    def scores(self) -> list[ProfileScores]:
        found = []
        for profile, judge, scorer, _ in self.judged:
            sets = [judge.scored(scorer)]
            facts: dict[str, Any] = {"n": scorer.n, **judge.facts()}
            found.append(ProfileScores(profile, judge.metrics(sets), facts, judge.by_metric(sets)))
        return found


def _read(file: SampleFile, pack: Pack, takers: Sequence[_Taker], progress: Callable[[int, int], None]) -> None:
    for start, images in file.batches(pack.manifest.channels):
        for taker in takers:
            taker.take(start, images)
        progress(start + len(images), file.n)


def _stage(profile: str, n: int | None) -> GenerateStage:
    document = Document({"parent": "none", "extractor": "none"}).over(load_profile(profile))
    if n is not None:
        document = document.patched(("n",), n, Place("--n"))
    return validate(GenerateStage, document)


def _rows(features: Features, rows: torch.Tensor) -> Features:
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
