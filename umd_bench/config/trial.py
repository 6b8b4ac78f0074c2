"""What a trial is: one fully specified experiment, as frozen models that refuse unknown fields.

Units: ``nimg`` counts images seen; ratios and probabilities lie in [0, 1]; ``t`` is 0 for a clean image and 1..timesteps
for a noised one. The presets of ``config/presets`` fill these fields with the paper's values (UMD paper, appendix).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from umd_bench.config.errors import FieldRuleError
from umd_bench.config.frozen import Frozen
from umd_bench.config.noise import NoiseConfig

Ratio = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.:-]*$", max_length=80)]


# What the architecture of a published family fixes.
_FIXED: dict[str, dict[str, int | bool]] = {
    "mae": {"decoder_depth": 0, "class_tokens": 1, "adaln": False},
    "dit": {"decoder_depth": 0, "class_tokens": 0, "adaln": True},
}


def _snapshot(value: float) -> float:
    if value > 0 and (isinstance(value, int) or value <= 1):
        return value
    raise ValueError(
        f"{value} is not accepted: expected images seen, a whole number from 1, or a share of the parent in (0, 1]"
    )


# Where on a parent: images seen, or a share of its length (1.0 is its end).
Snapshot = Annotated[int | float, AfterValidator(_snapshot)]


class ModelConfig(Frozen):
    """The auto-encoder's shape (UMD paper, section 4); the decoder has the encoder's width.

    ``family`` is ``umd`` for everything that is trained here. ``mae`` and ``dit`` are published encoders without a decoder,
    which come in through an import stage (engine/published) and are evaluated, not trained.
    """

    family: Literal["umd", "mae", "dit"] = Field(default="umd", description="umd, or a published model's own architecture")
    patch: int = Field(ge=1, description="patch side in pixels")
    width: int = Field(ge=8, description="token width of encoder and decoder")
    depth: int = Field(ge=1, description="encoder blocks")
    decoder_depth: int = Field(ge=0, description="decoder blocks; 0 in the families without a decoder")
    heads: int = Field(ge=1, description="attention heads")
    class_tokens: int = Field(default=4, ge=0)
    adaln: bool = Field(default=True, description="condition by adaptive LayerNorm; otherwise by one extra token a block")

    @model_validator(mode="after")
    def _shape(self) -> ModelConfig:
        if self.width % self.heads:
            raise FieldRuleError("width", f"{self.width} must be a multiple of heads = {self.heads}")
        if self.width % 2:
            raise FieldRuleError("width", f"{self.width} must be even (sine and cosine halves of the time embedding)")
        return self

    @model_validator(mode="after")
    def _family(self) -> ModelConfig:
        if self.family == "umd":
            for field in ("decoder_depth", "class_tokens"):
                if getattr(self, field) < 1:
                    raise FieldRuleError(field, f"{getattr(self, field)} is not accepted: expected at least 1")
            return self
        for field, only in _FIXED[self.family].items():
            if getattr(self, field) != only:
                raise FieldRuleError(field, f"{getattr(self, field)} is not accepted: the family {self.family} has {only}")
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
    loss_weight: Literal["uniform", "min_snr"] = Field(
        default="uniform", description="of the noise levels; engine/objective.py"
    )
    min_snr_gamma: float = Field(default=5.0, gt=0, description="the signal-to-noise ratio at which min_snr stops growing")
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
    def sees_clean(self) -> bool:
        """Whether the weights know clean images (t = 0)."""
        return self.n_clean > 0

    @property
    def keeps_average(self) -> bool:
        """Whether an average of the weights is kept beside them."""
        return self.optim.ema

    @property
    def n_steps(self) -> int:
        """Optimiser steps."""
        return self.nimg // self.batch

    def nimg_at(self, snapshot: float | None) -> int:
        """Images seen at a snapshot: a share is rounded to the nearest whole batch, and is at least one; None is the end."""
        if snapshot is None:
            return self.nimg
        return max(1, math.floor(snapshot * self.n_steps + 0.5)) * self.batch if isinstance(snapshot, float) else snapshot

    def can_keep(self, nimg: int) -> bool:
        """Whether there are weights after ``nimg`` images."""
        return 0 < nimg <= self.nimg and nimg % self.batch == 0

    @property
    def kept_at(self) -> str:
        """The sentence part that says where a child may ask for weights."""
        return f"a multiple of its batch = {self.batch} in 1..{self.nimg}, or a share of its length in (0, 1]"

    @property
    def lr_peak(self) -> float:
        """Peak learning rate."""
        return self.optim.lr_per_256 * self.batch / 256

    @property
    def ema_decay(self) -> float:
        """``1 - ema_rate_per_256 * batch/256``; the paper's rate is 1e-4."""
        return 1 - self.optim.ema_rate_per_256 * self.batch / 256


class ImportStage(Frozen):
    """Weights that somebody else trained, as a stage that others can start from or evaluate.

    ``file`` is a label: the weights are identified by ``sha256``, and a result is reused when the file has moved or gone.
    What else is stated here is what a file cannot tell.
    """

    kind: Literal["import"] = "import"
    parent: None = None
    snapshot: None = None
    layout: Name = Field(description="a name of engine/published/layouts.py")
    file: str = Field(min_length=1, description="path of the checkpoint; not part of the key")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file, in hex")
    nimg: int = Field(ge=1, description="images the weights have seen, as their publisher says")
    classes: int = Field(default=0, ge=0, description="classes the weights know, 0 for none; the data set's number of classes")
    sees_clean: bool = Field(
        default=True, description="whether they were trained on clean images too: decides where a probe looks"
    )
    pool: Literal["class", "patches"] = Field(
        default="class", description="the representation; only the family mae leaves a choice"
    )

    @property
    def labels(self) -> bool:
        """Whether the weights know classes."""
        return self.classes > 0

    @property
    def snapshots(self) -> tuple[int, ...]:
        """None before the end."""
        return ()

    @property
    def keeps_average(self) -> bool:
        """One set of weights is all there is."""
        return False

    def nimg_at(self, snapshot: float | None) -> int:
        """Images seen at a snapshot: a share of 1.0 and None are the only weights there are."""
        return self.nimg if snapshot is None or (isinstance(snapshot, float) and snapshot == 1) else int(snapshot)

    def can_keep(self, nimg: int) -> bool:
        """Whether there are weights after ``nimg`` images."""
        return nimg == self.nimg

    @property
    def kept_at(self) -> str:
        """The sentence part that says where a child may ask for weights."""
        return f"{self.nimg}, all that an import gives"


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
    t: int | None = Field(default=None, ge=0, description="None: 0, or 51 where the parent saw no clean image")


class GenerateStage(Frozen):
    """Sampling of a parent and the scores of its samples."""

    kind: Literal["generate"] = "generate"
    parent: Name
    snapshot: Snapshot | None = None
    n: int = Field(ge=2, description="samples a sampling seed")
    sampling_seeds: int = Field(default=1, ge=1, description="independent sample sets; scores are their mean")
    sampler: Name = Field(default="ddim", description="a name of engine/samplers.py")
    steps: int = Field(default=125, ge=1)
    eta: float | None = Field(
        default=None, ge=0, le=1, description="of ddim: 0 is deterministic, 1 (its default) ancestral; others take none"
    )
    cfg_scale: float = Field(default=1.0, ge=0, description="guidance; 1 is none")
    cfg_interval: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]] | None = Field(
        default=None, description="guide only at times t within these two, both included; None: at all"
    )
    clip: bool = Field(default=True, description="clip x_0 to [-1, 1] at every step (pixel space)")
    labels: Literal["balanced", "drawn"] = "balanced"
    ema: bool = Field(default=True, description="sample from the average where the parent keeps one")
    extractor: Name = Field(description="a name of evaluation/extractors.py")
    reference: Literal["train", "test"] = "test"
    batch: int = Field(default=250, ge=1, description="samples at once; changes no sample")

    @model_validator(mode="after")
    def _fields_that_act(self) -> GenerateStage:
        if self.eta is not None and not self.is_ddim:
            raise FieldRuleError("eta", f"{self.eta} is not accepted: the sampler {self.sampler} takes no eta, only ddim does")
        if self.cfg_interval is not None and self.cfg_interval[0] > self.cfg_interval[1]:
            raise FieldRuleError("cfg_interval", f"{list(self.cfg_interval)} is empty: expected [lowest t, highest t]")
        return self

    @property
    def is_ddim(self) -> bool:
        """Whether the sampler is of the family that ``eta`` belongs to."""
        return self.sampler.split("-")[0] == "ddim"


Stage = Annotated[TrainStage | ImportStage | ProbeStage | GenerateStage, Field(discriminator="kind")]
WeightsStage = TrainStage | ImportStage  # what ends in weights, and so can be a parent


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
            if not isinstance(parent, WeightsStage):
                trained = sorted(k for k, v in self.stages.items() if isinstance(v, WeightsStage) and k != name)
                raise FieldRuleError(f"stages.{name}.parent", f"{stage.parent!r} gives no weights: expected one of {trained}")
            if not parent.can_keep(parent.nimg_at(stage.snapshot)):
                raise FieldRuleError(
                    f"stages.{name}.snapshot",
                    f"{stage.snapshot} is none of {stage.parent}'s: expected {parent.kept_at}",
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
