"""One stage as a worker receives it, and its key.

A :class:`StageSpec` has the parts of a trial that the stage needs, and no others; ``config.yaml`` of a run directory contains
it. Its key is the hash of everything that can change the stage's result. The key leaves out settings that cannot change it
(checkpoint spacing, a label), and fields that have no effect because of another setting: the noise schedule if every image is
clean, the mask ratio of clean images if none is. Device kind, library versions and threads change the last bits only; they are
recorded with the result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from umd_bench.config.documents.fields import Frozen
from umd_bench.config.errors import FieldError
from umd_bench.config.trial.data import SPLITS, DataConfig
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.train_stage import TrainStage, WeightsStage
from umd_bench.config.trial.trained_extractors import extractor_of, trained_sha256
from umd_bench.config.trial.trial import Resources, Stage, TrialConfig

# The version of a component is raised by hand when code changes its results. A stage's key contains the versions that it uses.
COMPONENT_VERSIONS = {"data": 2, "engine": 2, "import": 1, "probe": 2, "generate": 2}

NOISED_PROBE_T = 51  # schedule index 50, at which the official code probes models that were trained without clean images


class StageSpec(Frozen):
    """A stage with its model, data, noise process and seed; ``parent_key`` is the key of the stage that it starts from."""

    stage: Stage
    model: ModelConfig
    data: DataConfig
    noise: NoiseConfig
    seed: int
    parent_key: str | None = None
    parent_nimg: int | None = Field(default=None, description="the parent's snapshot, in images seen")
    parent_labels: bool = Field(default=False, description="whether the parent's weights are conditioned on classes")
    parent_ema: bool = Field(default=False, description="whether the parent keeps an average of its weights")
    extractor_sha256: dict[str, str] = Field(
        default={}, description="SHA-256 of the weights of each extractor that was trained below the data root, by name"
    )
    resources: Resources = Resources()

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Images seen at which a training stage keeps weights before its end; empty for other stages."""
        return self.stage.snapshots if isinstance(self.stage, TrainStage) else ()

    def with_snapshots(self, snapshots: Iterable[int]) -> StageSpec:
        """The stage with these snapshots added to those that it keeps; the key is the same. Unchanged if it trains nothing."""
        if not isinstance(self.stage, TrainStage):
            return self
        wanted = {*snapshots} - {self.stage.nimg} | {*self.snapshots}
        if wanted == {*self.snapshots}:
            return self
        return self.model_copy(update={"stage": self.stage.model_copy(update={"snapshots": tuple(sorted(wanted))})})

    @property
    def devices(self) -> int:
        """Number of devices that the stage runs on; only a training stage has more than one."""
        return self.resources.devices if isinstance(self.stage, TrainStage) else 1

    def on_devices(self, devices: int) -> StageSpec:
        """A copy of the spec on ``devices`` devices; the key is unchanged."""
        return self.model_copy(update={"resources": self.resources.model_copy(update={"devices": devices})})

    @property
    def input_data(self) -> DataConfig:
        """The data set that the stage reads: the trial's, or the one that a probe names."""
        other = self.stage.data if isinstance(self.stage, ProbeStage) else None
        return self.data if other is None else other.like(self.data)

    @property
    def kind(self) -> str:
        """``pretrain``, ``finetune``, ``import``, ``probe`` or ``generate``."""
        return self.stage.kind

    @cached_property
    def key(self) -> str:
        """Sixteen hex digits of the SHA-256 of :meth:`identity`."""
        return _hashed(self.identity())

    def identity(self) -> dict[str, Any]:
        """Everything that can change the result, as plain values. The key is their hash, and ``plan`` compares them.

        A stage adds the fields that can change its result: its own, the model's and the noise process's.
        """
        trained = {"extractors": self.extractor_sha256} if self.extractor_sha256 else {}
        return {
            "data": self.input_data.identity(),
            "parent": self.parent_key,
            "parent_nimg": self.parent_nimg,
            "versions": {name: COMPONENT_VERSIONS[name] for name in ("data", self.stage.component)},
            **trained,
            **self.stage.identity(self.model, self.noise, seed=self.seed, parent_ema=self.parent_ema),
        }


def stage_specs(trial: TrialConfig, data_root: Path | None = None) -> dict[str, StageSpec]:
    """The trial's stages by name, parents before children, with the defaults that depend on the parent filled in.

    ``data_root`` is the folder whose trained classifiers the trial may use; None if it uses none. Raises :class:`FieldError`
    for a reference file that cannot be read, and :class:`UserError` for a classifier's description that cannot be read.
    """
    specs: dict[str, StageSpec] = {}
    for name in sorted(trial.stages, key=lambda n: (len(trial.lineage(n)), list(trial.stages).index(n))):
        stage = trial.stages[name]
        parent = specs[stage.parent] if stage.parent is not None else None
        if isinstance(stage, ProbeStage) and stage.t is None:
            weights = trial.stages[stage.parent]
            sees_clean = isinstance(weights, WeightsStage) and weights.sees_clean
            if stage.choose is not None:
                stage = stage.model_copy(update={"choose": stage.choose.resolved(sees_clean=sees_clean)})
            else:
                stage = stage.model_copy(update={"t": 0 if sees_clean else NOISED_PROBE_T})
        if isinstance(stage, GenerateStage) and stage.eta is None and stage.is_ddim:
            stage = stage.model_copy(update={"eta": 1.0})
        if isinstance(stage, GenerateStage) and not stage.is_split:
            stage = _with_hash(stage, f"stages.{name}.reference")
        specs[name] = StageSpec(
            stage=stage,
            model=trial.model,
            data=trial.data,
            noise=trial.noise,
            seed=trial.seed,
            resources=trial.resources,
            extractor_sha256=_trained_extractors(stage, trial.data, data_root),
            **_inherited(parent, stage.snapshot),
        )
    return specs


def reseeded(specs: dict[str, StageSpec], seeds: Sequence[int]) -> Iterator[dict[str, StageSpec]]:
    """For each seed, the result of :func:`stage_specs` for the same trial with that seed, at the cost of one hash per stage.

    ``specs`` are all stages of a trial, or some stages with all of their ancestors, parents first. Only a stage's seed, its
    parent's key and its own key depend on the trial's seed.
    """
    identities = {name: spec.identity() for name, spec in specs.items()} if seeds else {}
    for seed in seeds:
        again: dict[str, StageSpec] = {}
        keys: dict[str | None, str | None] = {None: None}  # key in ``specs`` -> key with this seed
        for name, spec in specs.items():
            changed = {"seed": seed, "parent_key": keys[spec.parent_key]}
            again[name] = spec.model_copy(update=changed)
            hashed = {"seed": seed, "parent": changed["parent_key"]}
            identity = {field: hashed.get(field, value) for field, value in identities[name].items()}
            # Overwrite the cached property, since model_copy has copied the key of the other seed.
            keys[spec.key] = vars(again[name])["key"] = _hashed(identity)
        yield again


def _hashed(identity: dict[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_hash(stage: GenerateStage, path: str) -> GenerateStage:
    """The stage with the absolute path and the hash of its reference file, which is read only if no hash is stated."""
    file = Path(stage.reference).expanduser().resolve()
    try:
        sha256 = stage.reference_sha256 or _sha256(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise FieldError(
            path, stage.reference, f"it cannot be read ({error.strerror}): expected {', '.join(SPLITS)}, or the path of an .npz"
        ) from None
    return stage.model_copy(update={"reference": str(file), "reference_sha256": sha256})


@lru_cache
def _sha256(file: Path, modified_ns: int) -> str:
    """The file's SHA-256 in hex; ``modified_ns`` is part of the cache's key, so a changed file is hashed again."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _trained_extractors(stage: Stage, data: DataConfig, data_root: Path | None) -> dict[str, str]:
    """Name -> SHA-256 of the stage's extractors trained below ``data_root``. Only the classifier of ``data`` can be one."""
    name = extractor_of(data.name)
    if data_root is None or data.side is None or not isinstance(stage, GenerateStage) or name not in stage.all_extractors:
        return {}
    sha256 = trained_sha256(data_root, name, data.side)
    return {} if sha256 is None else {name: sha256}


def _inherited(parent: StageSpec | None, snapshot: float | None) -> dict[str, Any]:
    if parent is None:
        return {}
    assert isinstance(parent.stage, WeightsStage)
    return {
        "parent_key": parent.key,
        "parent_nimg": parent.stage.nimg_at(snapshot),
        "parent_labels": parent.stage.labels,
        "parent_ema": parent.stage.keeps_average,
    }
