"""One stage as a worker receives it, and its key.

A :class:`StageSpec` is everything a stage needs and nothing of the trial that it does not: it is what ``config.yaml`` of a
run directory holds. Its key is the hash of what can change its result. What cannot (checkpoint spacing, a label) is left
out, and so is a field that a corner makes idle: the noise schedule when every image is clean, the clean mask ratio when
none is. Device kind, library versions and threads change the last bits only; they are recorded with the result, not hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from pydantic import Field

from umd_bench.config.documents.frozen import Frozen
from umd_bench.config.errors import FieldError
from umd_bench.config.trial.data import DataConfig
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.model import POOLS, ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.train_stage import ImportStage, TrainStage, WeightsStage
from umd_bench.config.trial.trial import Resources, Stage, TrialConfig

# Bumped by hand when code changes what a component computes; part of every key that depends on it.
COMPONENT_VERSIONS = {"data": 1, "engine": 2, "import": 1, "probe": 1, "generate": 2}

NOISED_PROBE_T = 51  # schedule index 50: where the official code probes models that saw no clean image


class StageSpec(Frozen):
    """A stage with its model, data, noise process and seed; ``parent_key`` chains it to the weights it starts from."""

    stage: Stage
    model: ModelConfig
    data: DataConfig
    noise: NoiseConfig
    seed: int
    parent_key: str | None = None
    parent_nimg: int | None = Field(default=None, description="which of the parent's snapshots, in images seen")
    parent_labels: bool = Field(default=False, description="whether the parent's weights know classes")
    parent_ema: bool = Field(default=False, description="whether the parent keeps an average of its weights")
    resources: Resources = Resources()

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Images seen at which a training stage keeps weights before its end; empty for other stages."""
        return self.stage.snapshots if isinstance(self.stage, TrainStage) else ()

    def keeping(self, snapshots: Iterable[int]) -> StageSpec:
        """The same stage, with the same key, that keeps these snapshots too; itself where it does, or trains nothing."""
        if not isinstance(self.stage, TrainStage):
            return self
        kept = {*snapshots} - {self.stage.nimg} | {*self.snapshots}
        if kept == {*self.snapshots}:
            return self
        return self.model_copy(update={"stage": self.stage.model_copy(update={"snapshots": tuple(sorted(kept))})})

    @property
    def devices(self) -> int:
        """How many devices the stage runs on: only training is spread over more than one."""
        return self.resources.devices if isinstance(self.stage, TrainStage) else 1

    def on(self, devices: int) -> StageSpec:
        """The stage on so many devices, whatever it was asked for: of its key that is no part."""
        return self.model_copy(update={"resources": self.resources.model_copy(update={"devices": devices})})

    @property
    def reads(self) -> DataConfig:
        """The data set whose images the stage sees: the trial's, or the one that a probe names."""
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
        """Everything that can change the result, as plain values: what the key hashes and what ``plan`` compares."""
        stage = self.stage.model_dump(mode="json", exclude={"parent", "snapshot"})
        identity: dict[str, Any] = {
            "stage": stage,
            "data": self.reads.identity(),
            "seed": self.seed,
            "parent": self.parent_key,
            "parent_nimg": self.parent_nimg,
        }
        match self.stage:
            case TrainStage() as train:
                identity["model"] = self.model.model_dump(mode="json", exclude={"family"})  # only one is trained
                identity["noise"] = self.noise.model_dump(mode="json")
                identity["versions"] = {name: COMPONENT_VERSIONS[name] for name in ("data", "engine")}
                for idle in ("snapshots", "checkpoint_every_nimg"):
                    stage.pop(idle)
                if train.n_clean == train.batch:
                    identity.pop("noise")
                    stage["corruption"].pop("mask_ratio")
                    stage.pop("loss_weight")
                if train.n_clean == train.batch or train.loss_weight == "uniform":
                    stage.pop("min_snr_gamma")
                if train.n_clean == 0:
                    stage["corruption"].pop("mask_ratio_t0")
            case ImportStage():
                identity["model"] = self.model.model_dump(mode="json")
                identity["versions"] = {name: COMPONENT_VERSIONS[name] for name in ("data", "import")}
                stage.pop("file")
                identity.pop("seed")  # nothing is drawn: every seed of a sweep shares one import
            case ProbeStage() as probe:
                identity["versions"] = {name: COMPONENT_VERSIONS[name] for name in ("data", "probe")}
                stage.pop("data")
                for added in ("knn", "linear", "block", "pool"):  # what is not measured is in no key
                    if not stage[added]:
                        stage.pop(added)
                if not probe.shots:
                    for idle in ("draws", "ridge", "bias"):
                        stage.pop(idle)
                if probe.block == self.model.depth:
                    stage.pop("block")
                if probe.pool == POOLS[self.model.family][0] and self.model.family != "mae":  # an import of mae has a say
                    stage.pop("pool")
                if probe.t:
                    identity["noise"] = self.noise.model_dump(mode="json")
            case GenerateStage() as generate:
                identity["noise"] = self.noise.model_dump(mode="json")
                identity["versions"] = {name: COMPONENT_VERSIONS[name] for name in ("data", "generate")}
                identity["stage"] = stage = generate.identity()
                stage["ema"] = generate.ema and self.parent_ema
                if generate.cfg_scale == 1:
                    stage.pop("cfg_interval")
        return identity


def stage_specs(trial: TrialConfig) -> dict[str, StageSpec]:
    """The trial's stages by name, parents before children, with every default that depends on the parent filled in."""
    specs: dict[str, StageSpec] = {}
    for name in sorted(trial.stages, key=lambda n: (len(trial.lineage(n)), list(trial.stages).index(n))):
        stage = trial.stages[name]
        parent = specs[stage.parent] if stage.parent is not None else None
        if isinstance(stage, ProbeStage) and stage.t is None:
            weights = trial.stages[stage.parent]
            sees_clean = isinstance(weights, WeightsStage) and weights.sees_clean
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
            **_inherited(parent, stage.snapshot),
        )
    return specs


def reseeded(specs: dict[str, StageSpec], seeds: Sequence[int]) -> Iterator[dict[str, StageSpec]]:
    """For each seed what :func:`stage_specs` gives for the same trial with it, at the cost of a hash a stage.

    ``specs`` are all stages of a trial, or some with all of their ancestors, parents first. Nothing of a stage but its seed,
    its parent's key and so its own key depends on the seed.
    """
    identities = {name: spec.identity() for name, spec in specs.items()} if seeds else {}
    for seed in seeds:
        again: dict[str, StageSpec] = {}
        keys: dict[str | None, str | None] = {None: None}  # this seed's by those of ``specs``
        for name, spec in specs.items():
            changed = {"seed": seed, "parent_key": keys[spec.parent_key]}
            again[name] = spec.model_copy(update=changed)
            hashed = {"seed": seed, "parent": changed["parent_key"]}
            identity = {field: hashed.get(field, value) for field, value in identities[name].items()}
            # where the cached property keeps it: model_copy has brought along that of the other seed
            keys[spec.key] = vars(again[name])["key"] = _hashed(identity)
        yield again


def _hashed(identity: dict[str, Any]) -> str:
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _with_hash(stage: GenerateStage, path: str) -> GenerateStage:
    """The stage with the hash of its reference file, which a stage that states it needs not have here, and the whole path."""
    file = Path(stage.reference).expanduser().resolve()
    try:
        sha256 = stage.reference_sha256 or _sha256(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise FieldError(
            path, stage.reference, f"it cannot be read ({error.strerror}): expected train, test, or the path of an .npz"
        ) from None
    return stage.model_copy(update={"reference": str(file), "reference_sha256": sha256})


@lru_cache
def _sha256(file: Path, modified_ns: int) -> str:
    """In hex; the other argument says which state of the file is meant."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


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
