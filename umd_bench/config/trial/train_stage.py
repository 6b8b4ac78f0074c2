"""Stages that end in weights: pre-training, fine-tuning, and the import of somebody else's."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Name, Ratio, Share, Snapshot
from umd_bench.config.documents.frozen import Frozen
from umd_bench.config.errors import FieldError, FieldRuleError


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

    def require_no_crop(self, path: str) -> None:
        """Raise :class:`FieldError` below ``path`` for crops, which latents cannot be given."""
        if self.crop_area_min < 1:
            raise FieldError(
                f"{path}.crop_area_min",
                self.crop_area_min,
                "expected 1 on latents: a crop of an image has other latents than the crop of its latents, and only whole "
                "images and their mirror images are stored",
            )


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
        default="uniform", description="of the noise levels; engine/diffusion/objective.py"
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


WeightsStage = TrainStage | ImportStage  # what ends in weights, and so can be a parent
