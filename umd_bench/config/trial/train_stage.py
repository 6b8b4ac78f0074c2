"""Stages that end in weights: pre-training, fine-tuning, and the import of published weights."""

from __future__ import annotations

import math
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from umd_bench.config.documents.fields import Frozen, Name, Ratio, Share, Snapshot
from umd_bench.config.errors import FieldError, FieldRuleError
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig


class CorruptionConfig(Frozen):
    """How a batch of B images is corrupted: ``int(B * r_t0)`` stay clean under a high mask ratio, the others are noised."""

    r_t0: Share = Field(description="share of clean (t = 0) images in a batch, in [0, 1]")
    mask_ratio: Ratio = Field(default=0.0, description="share of masked tokens in noised images, in [0, 1)")
    mask_ratio_t0: Ratio = Field(default=0.75, description="share of masked tokens in clean images, in [0, 1)")

    @model_validator(mode="after")
    def _clean_group_needs_a_mask(self) -> CorruptionConfig:
        if self.r_t0 > 0 and self.mask_ratio_t0 == 0:
            raise FieldRuleError(
                "mask_ratio_t0",
                f"0 with r_t0 = {self.r_t0} leaves clean images nothing to predict: expected a ratio in (0, 1), or r_t0 = 0",
            )
        return self


class AugmentConfig(Frozen):
    """Training augmentation: random resized crop (aspect 3/4..4/3) and horizontal flip."""

    crop_area_min: float = Field(
        default=1.0, gt=0, le=1, description="smallest area of a random crop, as a share of the image's in (0, 1]; 1: no crops"
    )
    flip: bool = Field(default=False, description="mirror images horizontally with probability 1/2")

    def require_no_crop(self, path: str) -> None:
        """Raise :class:`FieldError` below ``path`` if images are cropped, which is impossible for latents."""
        if self.crop_area_min < 1:
            raise FieldError(
                f"{path}.crop_area_min",
                self.crop_area_min,
                "expected 1 on latents: only the latents of whole images and of their mirror images are stored, and a crop of "
                "these is not the latents of a crop",
            )


class OptimConfig(Frozen):
    """Clipping, AdamW, warm-up and cosine decay (UMD paper, appendix)."""

    lr_per_256: float = Field(
        default=1.5e-4, gt=0, description="peak learning rate for a batch of 256; scaled linearly with the batch"
    )
    warmup_nimg: int = Field(default=0, ge=0, description="images seen during linear warm-up from 0; a cosine to 0 follows")
    weight_decay: float = Field(default=0.05, ge=0, description="weight decay of AdamW")
    beta1: float = Field(default=0.9, ge=0, lt=1, description="decay of AdamW's first moment, in [0, 1)")
    beta2: float = Field(default=0.95, ge=0, lt=1, description="decay of AdamW's second moment, in [0, 1)")
    eps: float = Field(default=1e-8, gt=0, description="AdamW's epsilon")
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of the gradient; larger ones are scaled down to it")
    first_moment: Literal["fp32", "bf16"] = Field(
        default="fp32", description="type that AdamW's first moment is stored in; the official implementation has bf16"
    )
    ema: bool = Field(default=False, description="keep an exponential moving average of the weights, to sample from")
    ema_rate_per_256: float = Field(
        default=1e-4, gt=0, le=1, description="rate of the average for a batch of 256: its decay is 1 - rate * batch/256"
    )


class TrainStage(Frozen):
    """Pre-training, or fine-tuning of a parent's weights with a fresh optimiser."""

    component: ClassVar[str] = "engine"

    kind: Literal["pretrain", "finetune"] = Field(description="pretrain: from new weights; finetune: from a parent's weights")
    parent: Name | None = Field(default=None, description="finetune only: the stage whose weights the training starts from")
    snapshot: Snapshot | None = Field(
        default=None,
        description="point in the parent's training: images seen, or a share of its length in (0, 1]; null: its end",
    )
    nimg: int = Field(ge=1, description="length in images seen; a multiple of batch")
    batch: int = Field(ge=1, description="images per optimiser step, over all devices")
    corruption: CorruptionConfig = Field(description="which images of a batch are noised, and how much of each is masked")
    loss_weight: Literal["uniform", "min_snr"] = Field(
        default="uniform",
        description="weight of the noise levels in the loss: all equal, or Min-SNR (Hang et al., arXiv 2303.09556)",
    )
    min_snr_gamma: float = Field(default=5.0, gt=0, description="min_snr only: the cap on the signal-to-noise ratio")
    labels: bool = Field(default=False, description="train with class labels, which are dropped with probability 0.1")
    augment: AugmentConfig = Field(default=AugmentConfig(), description="random crops and flips; none by default")
    optim: OptimConfig = Field(
        default=OptimConfig(), description="optimiser, learning rate, clipping and average of the weights"
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32", description="bf16 trains under autocast, with fp32 master weights"
    )
    snapshots: tuple[int, ...] = Field(
        default=(),
        description="images seen at which weights are kept, each a multiple of batch; those that other stages need are added",
    )
    checkpoint_every_nimg: int | None = Field(
        default=None, ge=1, description="images between two checkpoints to resume from; null: ten checkpoints per stage"
    )

    @model_validator(mode="after")
    def _batch(self) -> TrainStage:
        if (self.kind == "finetune") != (self.parent is not None):
            raise FieldRuleError("parent", "a finetune stage names its parent, a pretrain stage has none")
        if self.nimg % self.batch:
            raise FieldRuleError("nimg", f"{self.nimg} is not accepted: expected a multiple of batch = {self.batch}")
        for snapshot in self.snapshots:
            if not 0 < snapshot <= self.nimg or snapshot % self.batch:
                raise FieldRuleError(
                    "snapshots",
                    f"{snapshot} is not accepted: expected multiples of batch = {self.batch} in 1..{self.nimg}",
                )
        if self.corruption.r_t0 > 0 and self.n_clean == 0:
            raise FieldRuleError(
                "corruption.r_t0",
                f"{self.corruption.r_t0} gives no clean image in a batch of {self.batch}: "
                f"expected 0, or at least {math.ceil(1e4 / self.batch) / 1e4}",
            )
        return self

    @property
    def n_clean(self) -> int:
        """Number of clean images in a batch: ``int(B * r_t0)``."""
        return int(self.batch * self.corruption.r_t0)

    @property
    def sees_clean(self) -> bool:
        """Whether the model is trained on clean images (t = 0)."""
        return self.n_clean > 0

    @property
    def keeps_average(self) -> bool:
        """Whether the stage keeps an exponential moving average of the weights."""
        return self.optim.ema

    @property
    def n_steps(self) -> int:
        """Number of optimiser steps."""
        return self.nimg // self.batch

    @property
    def lr_peak(self) -> float:
        """Peak learning rate for this batch size."""
        return self.optim.lr_per_256 * self.batch / 256

    @property
    def ema_decay(self) -> float:
        """``1 - ema_rate_per_256 * batch/256``; the paper's rate is 1e-4."""
        return 1 - self.optim.ema_rate_per_256 * self.batch / 256

    def nimg_at(self, snapshot: float | None) -> int:
        """Images seen at a snapshot. A share is rounded to the nearest whole number of batches, at least one; None: the end."""
        if snapshot is None:
            return self.nimg
        return max(1, math.floor(snapshot * self.n_steps + 0.5)) * self.batch if isinstance(snapshot, float) else snapshot

    def has_weights_at(self, nimg: int) -> bool:
        """Whether a snapshot can be taken after ``nimg`` images."""
        return 0 < nimg <= self.nimg and nimg % self.batch == 0

    @property
    def accepted_snapshots(self) -> str:
        """The part of an error that says which snapshots a child may ask for."""
        return f"a multiple of its batch = {self.batch} in 1..{self.nimg}, or a share of its length in (0, 1]"

    def identity(self, model: ModelConfig, noise: NoiseConfig, *, seed: int, parent_ema: bool) -> dict[str, Any]:
        """The stage's part of its key, without the fields that have no effect.

        These are the noise process, the mask ratio of noised images and the loss weight if every image is clean; the mask ratio
        of clean images if no image is clean; and gamma unless the loss weight uses it.
        """
        fields = self.model_dump(mode="json", exclude={"parent", "snapshot", "snapshots", "checkpoint_every_nimg"})
        identity: dict[str, Any] = {"stage": fields, "seed": seed, "model": model.model_dump(mode="json", exclude={"family"})}
        if self.n_clean == self.batch:
            fields["corruption"].pop("mask_ratio")
            fields.pop("loss_weight")
        else:
            identity["noise"] = noise.model_dump(mode="json")
        if self.n_clean == self.batch or self.loss_weight == "uniform":
            fields.pop("min_snr_gamma")
        if self.n_clean == 0:
            fields["corruption"].pop("mask_ratio_t0")
        return identity


class ImportStage(Frozen):
    """Published weights, as a stage that others can start from or evaluate.

    The weights are identified by ``sha256``; ``file`` only says where they are, so a result is reused after the file has moved
    or is gone. The other fields state facts that cannot be read from a checkpoint.
    """

    component: ClassVar[str] = "import"

    kind: Literal["import"] = Field(default="import", description="import: weights from a file")
    parent: None = Field(default=None, description="null: an import starts from nothing")
    snapshot: None = Field(default=None, description="null: an import starts from nothing")
    layout: Name = Field(description="how tensors are named in the file: mae, dit or small-vision")
    file: str = Field(min_length=1, description="path of the checkpoint; not part of the key")
    sha256: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the file, in hex")
    nimg: int = Field(ge=1, description="images that the weights have seen, as their publisher states")
    classes: int = Field(
        default=0, ge=0, description="number of classes that the weights are conditioned on: the data set's, or 0 for none"
    )
    sees_clean: bool = Field(
        default=True,
        description="whether the weights were trained on clean images; if not, probes use noised images (t = 51)",
    )
    pool: Literal["class", "patches"] = Field(
        default="class", description="family mae only: which tokens are averaged to the representation"
    )

    @property
    def labels(self) -> bool:
        """Whether the weights are conditioned on classes."""
        return self.classes > 0

    @property
    def snapshots(self) -> tuple[int, ...]:
        """Empty: an import has weights at its end only."""
        return ()

    @property
    def keeps_average(self) -> bool:
        """False: an import has one set of weights."""
        return False

    def nimg_at(self, snapshot: float | None) -> int:
        """Images seen at a snapshot; None and a share of 1.0 mean the import's only weights."""
        return self.nimg if snapshot is None or (isinstance(snapshot, float) and snapshot == 1) else int(snapshot)

    def has_weights_at(self, nimg: int) -> bool:
        """Whether the import's weights have seen ``nimg`` images."""
        return nimg == self.nimg

    @property
    def accepted_snapshots(self) -> str:
        """The part of an error that says which snapshots a child may ask for."""
        return f"{self.nimg}, the only weights that an import has"

    def identity(self, model: ModelConfig, noise: NoiseConfig, *, seed: int, parent_ema: bool) -> dict[str, Any]:
        """The stage's part of its key. It has no seed, so all seeds of a sweep share one import."""
        fields = self.model_dump(mode="json", exclude={"parent", "snapshot", "file"})
        return {"stage": fields, "model": model.model_dump(mode="json")}


WeightsStage = TrainStage | ImportStage  # the stages that end in weights, and can be parents
