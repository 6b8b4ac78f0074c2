"""What a trial is: one fully specified experiment, as frozen models that refuse unknown fields.

Units: ``nimg`` counts images seen; ratios and probabilities lie in [0, 1]; ``t`` is 0 for a clean image and 1..timesteps
for a noised one. The presets of ``config/presets`` fill these fields with the paper's values (UMD paper, appendix).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from umd_bench.config.errors import FieldRuleError

Ratio = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.:-]*$", max_length=80)]


def _snapshot(value: float) -> float:
    if value > 0 and (isinstance(value, int) or value <= 1):
        return value
    raise ValueError(
        f"{value} is not accepted: expected images seen, a whole number from 1, or a share of the parent in (0, 1]"
    )


# Where on a parent: images seen, or a share of its length (1.0 is its end).
Snapshot = Annotated[int | float, AfterValidator(_snapshot)]


class Frozen(BaseModel):
    """Immutable, and an unknown field is an error rather than a silent default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelConfig(Frozen):
    """The auto-encoder's shape (UMD paper, section 4); the decoder has the encoder's width."""

    patch: int = Field(ge=1, description="patch side in pixels")
    width: int = Field(ge=8, description="token width of encoder and decoder")
    depth: int = Field(ge=1, description="encoder blocks")
    decoder_depth: int = Field(ge=1, description="decoder blocks")
    heads: int = Field(ge=1, description="attention heads")
    class_tokens: int = Field(default=4, ge=1)
    adaln: bool = Field(default=True, description="condition by adaptive LayerNorm; otherwise by one extra token a block")

    @model_validator(mode="after")
    def _shape(self) -> ModelConfig:
        if self.width % self.heads:
            raise FieldRuleError("width", f"{self.width} must be a multiple of heads = {self.heads}")
        if self.width % 2:
            raise FieldRuleError("width", f"{self.width} must be even (sine and cosine halves of the time embedding)")
        return self


# Data sets whose images have one size, in pixels: what their files are rendered, padded or measured at. All others have none.
OWN_SIZES = {"digits": 8, "fashion_mnist": 32, "emoji64": 64}


class DataConfig(Frozen):
    """Which data set, and at which size; channels and classes are facts of the data source (``data/sources.py``)."""

    name: Name
    size: int | None = Field(default=None, ge=1, description="image side in pixels; None: the data set's own")
    vae: Name | None = Field(default=None, description="a name of data/sources.py: train on its latents of the images")

    @model_validator(mode="after")
    def _own_size(self) -> DataConfig:
        own = OWN_SIZES.get(self.name)
        if own is not None and self.size not in (None, own):
            raise FieldRuleError("size", f"{self.size} is not accepted: images of {self.name} have {own} pixels a side")
        return self

    @property
    def side(self) -> int | None:
        """Image side in pixels; None where neither the configuration nor the data set has one."""
        return self.size or OWN_SIZES.get(self.name)

    def like(self, other: DataConfig) -> DataConfig:
        """This data set at the size, and in the latents, of ``other`` where it states none and has none."""
        if self.side is not None:
            return self
        return self.model_copy(update={"size": other.side, "vae": self.vae or other.vae})

    def identity(self) -> dict[str, Any]:
        """What a key hashes: a size that the data set has anyway is left out, and so is what is not set."""
        own = {"size"} if self.size == OWN_SIZES.get(self.name) else set()
        return self.model_dump(mode="json", exclude=own, exclude_none=True)


class NoiseConfig(Frozen):
    """The noise process shared by every stage of a trial (UMD paper, section 3)."""

    schedule: Name = Field(default="cosine", description="a name of engine/schedules.py")
    timesteps: int = Field(default=1000, ge=2)


class CorruptionConfig(Frozen):
    """How a batch is corrupted: ``int(B * r_t0)`` clean rows under a high mask, the rest noised under a lower one."""

    r_t0: Share = Field(description="share of clean (t = 0) images in a batch")
    mask_ratio: Ratio = Field(default=0.0, description="masked share of the tokens of noised images")
    mask_ratio_t0: Ratio = Field(default=0.75, description="masked share of the tokens of clean images")

    @model_validator(mode="after")
    def _clean_group_needs_a_mask(self) -> CorruptionConfig:
        if self.r_t0 > 0 and self.mask_ratio_t0 == 0:
            raise FieldRuleError(
                "mask_ratio_t0",
                f"0 with r_t0 = {self.r_t0} leaves the clean group nothing to predict: expected a ratio in (0, 1), or r_t0 = 0",
            )
        return self


class AugmentConfig(Frozen):
    """Training augmentation: random resized crop (aspect 3/4..4/3) and horizontal flip."""

    crop_area_min: float = Field(default=1.0, gt=0, le=1, description="smallest cropped share of the area; 1 crops nothing")
    flip: bool = Field(default=False, description="horizontal flip with probability 1/2")


class OptimConfig(Frozen):
    """Clipping, AdamW, warm-up and cosine (UMD paper, appendix)."""

    lr_per_256: float = Field(default=1.5e-4, gt=0, description="peak learning rate for a batch of 256; scales linearly")
    warmup_nimg: int = Field(default=0, ge=0, description="images of linear warm-up from 0")
    weight_decay: float = Field(default=0.05, ge=0)
    beta1: float = Field(default=0.9, ge=0, lt=1)
    beta2: float = Field(default=0.95, ge=0, lt=1)
    eps: float = Field(default=1e-8, gt=0)
    clip_norm: float = Field(default=1.0, gt=0)
    first_moment: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16 is the official implementation's")
    ema: bool = Field(default=False, description="keep an average of the weights")
    ema_rate_per_256: float = Field(default=1e-4, gt=0, le=1, description="its decay is 1 - this * batch/256")


class TrainStage(Frozen):
    """Pre-training, or fine-tuning of a parent's weights with a fresh optimiser."""

    kind: Literal["pretrain", "finetune"]
    parent: Name | None = None
    snapshot: Snapshot | None = Field(
        default=None, description="images the parent has seen, or a share of it; its end when left out"
    )
    nimg: int = Field(ge=1, description="length in images seen")
    batch: int = Field(ge=1)
    corruption: CorruptionConfig
    labels: bool = Field(default=False, description="train with class labels, dropped with probability 0.1")
    augment: AugmentConfig = AugmentConfig()
    optim: OptimConfig = OptimConfig()
    precision: Literal["fp32", "bf16"] = Field(default="fp32", description="bf16 is autocast over fp32 master weights")
    snapshots: tuple[int, ...] = Field(
        default=(), description="images seen at which weights are kept, besides what children ask"
    )
    checkpoint_every_nimg: int | None = Field(default=None, ge=1, description="None: ten checkpoints a stage")

    @model_validator(mode="after")
    def _batch(self) -> TrainStage:
        if (self.kind == "finetune") != (self.parent is not None):
            raise FieldRuleError("parent", "a finetune stage names its parent, a pretrain stage has none")
        if self.nimg % self.batch:
            raise FieldRuleError("nimg", f"{self.nimg} must be a multiple of batch = {self.batch}")
        for snapshot in self.snapshots:
            if not 0 < snapshot <= self.nimg or snapshot % self.batch:
                raise FieldRuleError("snapshots", f"{snapshot} must be a multiple of batch = {self.batch} in 1..{self.nimg}")
        if self.corruption.r_t0 > 0 and self.n_clean == 0:
            raise FieldRuleError(
                "corruption.r_t0",
                f"{self.corruption.r_t0} gives no clean image in a batch of {self.batch}; "
                f"expected 0, or at least {math.ceil(1e4 / self.batch) / 1e4}",
            )
        return self

    @property
    def n_clean(self) -> int:
        """Clean rows in a batch: ``int(B * r_t0)``."""
        return int(self.batch * self.corruption.r_t0)

    @property
    def n_steps(self) -> int:
        """Optimiser steps."""
        return self.nimg // self.batch

    def nimg_at(self, snapshot: float | None) -> int:
        """Images seen at a snapshot: a share is rounded to the nearest whole batch, and is at least one; None is the end."""
        if snapshot is None:
            return self.nimg
        return max(1, math.floor(snapshot * self.n_steps + 0.5)) * self.batch if isinstance(snapshot, float) else snapshot

    @property
    def lr_peak(self) -> float:
        """Peak learning rate."""
        return self.optim.lr_per_256 * self.batch / 256

    @property
    def ema_decay(self) -> float:
        """``1 - ema_rate_per_256 * batch/256``; the paper's rate is 1e-4."""
        return 1 - self.optim.ema_rate_per_256 * self.batch / 256


class ProbeStage(Frozen):
    """Few-shot ridge probe of a parent's raw weights (UMD paper, appendix)."""

    kind: Literal["probe"] = "probe"
    parent: Name
    snapshot: Snapshot | None = None
    shots: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(10, 100), min_length=1)
    draws: int = Field(default=5, ge=1, description="independent draws of the shots; the metric is their mean")
    ridge: float = Field(default=1024.0, gt=0)
    bias: float = Field(default=100.0, description="the appended constant; the bias is regularised too")
    data: DataConfig | None = Field(default=None, description="None: the trial's; another of the same size and channels")
    t: int | None = Field(default=None, ge=0, description="None: 0, or 51 where the parent trained with r_t0 = 0")


class GenerateStage(Frozen):
    """Sampling of a parent and the scores of its samples."""

    kind: Literal["generate"] = "generate"
    parent: Name
    snapshot: Snapshot | None = None
    n: int = Field(ge=2, description="samples a sampling seed")
    sampling_seeds: int = Field(default=1, ge=1, description="independent sample sets; scores are their mean")
    sampler: Name = Field(default="ddim", description="a name of engine/samplers.py")
    steps: int = Field(default=125, ge=1)
    eta: float = Field(default=1.0, ge=0, description="0 is deterministic DDIM, 1 ancestral")
    cfg_scale: float = Field(default=1.0, ge=0, description="guidance; 1 is none")
    clip: bool = Field(default=True, description="clip x_0 to [-1, 1] at every step (pixel space)")
    labels: Literal["balanced", "drawn"] = "balanced"
    ema: bool = Field(default=True, description="sample from the average where the parent keeps one")
    extractor: Name = Field(description="a name of evaluation/extractors.py")
    reference: Literal["train", "test"] = "test"
    batch: int = Field(default=250, ge=1, description="samples at once; changes no sample")


Stage = Annotated[TrainStage | ProbeStage | GenerateStage, Field(discriminator="kind")]


class Resources(Frozen):
    """What one stage occupies. Threads change the order of sums and so the bits: the same on every executor."""

    threads: int = Field(default=1, ge=1)
    device: Literal["auto", "cpu", "cuda"] = "auto"


class TrialConfig(Frozen):
    """One experiment: method, model, data, noise, stages, seed."""

    method: Name = Field(description="the preset the fields came from; a label, not part of any key")
    model: ModelConfig
    data: DataConfig
    noise: NoiseConfig = NoiseConfig()
    stages: dict[Name, Stage] = Field(min_length=1)
    seed: int = Field(default=0, ge=0, lt=2**31)
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _stages_form_a_forest(self) -> TrialConfig:
        for name, stage in self.stages.items():
            if stage.parent is None:
                continue
            parent = self.stages.get(stage.parent)
            if not isinstance(parent, TrainStage):
                trained = sorted(k for k, v in self.stages.items() if isinstance(v, TrainStage) and k != name)
                raise FieldRuleError(
                    f"stages.{name}.parent", f"{stage.parent!r} is no training stage: expected one of {trained}"
                )
            nimg = parent.nimg_at(stage.snapshot)
            if not 0 < nimg <= parent.nimg or nimg % parent.batch:
                raise FieldRuleError(
                    f"stages.{name}.snapshot",
                    f"{stage.snapshot} is none of {stage.parent}'s: expected a multiple of its batch = {parent.batch} "
                    f"in 1..{parent.nimg}, or a share of its length in (0, 1]",
                )
        for name in self.stages:
            self.lineage(name)
        return self

    def lineage(self, name: str) -> tuple[str, ...]:
        """The stage's ancestors and itself, oldest first; a cycle raises :class:`FieldRuleError`."""
        line = [name]
        while (parent := self.stages[line[0]].parent) is not None:
            if parent in line:
                raise FieldRuleError(f"stages.{name}.parent", f"the stage descends from itself: {' -> '.join([parent, *line])}")
            line.insert(0, parent)
        return tuple(line)
