"""Looks: how many results of a results folder read the test split and the validation split of a data set.

Whoever chooses settings by a split's scores fits them to that split a little with every look. The counts say how often that was
possible; they cannot say whether anybody looked.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import get_args

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.tier_card import Looks
from umd_bench.config.trial.data import ScoredSplit
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.store import RunDir

_ANY_SEED = ("seed", "parent", "parent_nimg")


def count_looks(results: Path, digest: str) -> dict[ScoredSplit, Looks]:
    """Split -> the results below ``results`` that read this split of the data set whose pack has the ``digest``.

    ``settings`` counts the trainings behind these results. Trainings that differ only in their seed, or in the snapshot that
    was read, count once. Run directories that cannot be read are left out.
    """
    probes: dict[str, int] = dict.fromkeys(get_args(ScoredSplit), 0)
    samples = dict(probes)
    settings: dict[str, set[str]] = {split: set() for split in probes}
    trainings = _Trainings(results)
    for folder in sorted((results / "stages").glob("*")):
        run = RunDir(results, folder.name)
        try:
            result = run.result()
            if result is None or result["data"]["digest"] != digest:
                continue
            spec = run.config()
        except (UserError, KeyError):
            continue
        for split in splits_read(spec):
            counted = probes if isinstance(spec.stage, ProbeStage) else samples
            counted[split] += 1
            settings[split].add(trainings.setting(spec.parent_key))
    return {
        split: Looks(probes=probes[split], samples=samples[split], settings=len(settings[split]))
        for split in get_args(ScoredSplit)
    }


def splits_read(spec: StageSpec) -> set[str]:
    """The splits without training images that a stage reads: test, validation or both."""
    match spec.stage:
        case ProbeStage() as probe:
            chosen = {"validation"} if probe.choose is not None else set()
            return {probe.split} | chosen
        case GenerateStage() as generate:
            if generate.reference in get_args(ScoredSplit):
                return {generate.reference}
            needs_held_out = generate.reference == "train" or "memorised" in generate.scores
            return {generate.held_out_split} if needs_held_out else set()
    return set()


class _Trainings:
    """Names trainings by everything but their seed; each run directory is read once."""

    def __init__(self, results: Path) -> None:
        self._results = results
        self._names: dict[str, str] = {}

    def setting(self, key: str | None) -> str:
        """The same text for all seeds of a training and its ancestors; the key itself if its run directory is gone."""
        if key is None:
            return ""
        if key not in self._names:
            try:
                spec = RunDir(self._results, key).config()
            except UserError:
                self._names[key] = key
                return key
            fields = {name: value for name, value in spec.identity().items() if name not in _ANY_SEED}
            text = json.dumps([fields, self.setting(spec.parent_key)], sort_keys=True)
            self._names[key] = hashlib.sha256(text.encode()).hexdigest()
        return self._names[key]
