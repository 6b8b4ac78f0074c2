"""The stage that probes a representation: which representation, and with which read-outs."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, NamedTuple

from pydantic import AfterValidator, Field, model_validator

from umd_bench.config.documents.fields import Frozen, Name, Snapshot
from umd_bench.config.errors import FieldRuleError
from umd_bench.config.trial.data import DataConfig, ScoredSplit
from umd_bench.config.trial.model import POOLS, ModelConfig
from umd_bench.config.trial.noise import NoiseConfig

Positive = Annotated[float, Field(gt=0)]
Pool = Literal["class", "first_class", "patches"]


def _penalty(value: float | tuple[float, ...]) -> float | tuple[float, ...]:
    values = value if isinstance(value, tuple) else (value,)
    if values and min(values) > 0:
        return value
    shown = list(value) if isinstance(value, tuple) else value
    raise ValueError(f"{shown} is not accepted: expected a number above 0, or a list of such numbers")


Penalty = Annotated[float | tuple[float, ...], AfterValidator(_penalty)]


class LinearConfig(Frozen):
    """A linear probe trained by LARS (He et al., arXiv 2111.06377, appendix A.1) on features that are computed once."""

    lr_per_256: tuple[Positive, ...] = Field(
        default=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        min_length=1,
        description="peak learning rates for a batch of 256; if several, all are trained and the best on held_out is reported",
    )
    batch: int = Field(default=4096, ge=2, description="images per step; capped at the number of training images")
    epochs: int = Field(default=100, ge=1, description="passes over the training images")
    warmup_epochs: int = Field(
        default=5, ge=0, description="epochs of linear warm-up from 0, followed by a cosine to 0; less than epochs"
    )
    weight_decay: float = Field(default=5e-5, ge=0, description="weight decay of LARS")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="momentum of LARS, in [0, 1)")
    held_out: float = Field(
        default=0.1,
        gt=0,
        lt=1,
        description="share of each class's training images, in (0, 1), on which the learning rate is chosen",
    )

    @model_validator(mode="after")
    def _warmup_ends(self) -> LinearConfig:
        if self.warmup_epochs >= self.epochs:
            raise FieldRuleError(
                "warmup_epochs", f"{self.warmup_epochs} is not accepted: expected less than epochs = {self.epochs}"
            )
        if len(set(self.lr_per_256)) < len(self.lr_per_256):
            raise FieldRuleError("lr_per_256", f"{list(self.lr_per_256)} is not accepted: expected each rate once")
        return self


class ChooseConfig(Frozen):
    """The places (block, pool, t) that are compared on the validation split; the best of them is scored.

    They are compared by the few-shot accuracy at the stage's largest number of shots. If several are equally good, the first
    wins, in the order of blocks, then pools, then times.
    """

    blocks: Literal["all"] | tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default="all", description="encoder blocks, from 1; all: every block"
    )
    pools: Literal["all"] | tuple[Pool, ...] = Field(
        default="all", description="pools, as in pool; all: every one of the model"
    )
    times: tuple[Literal["clean"] | Annotated[int, Field(ge=0)], ...] = Field(
        default=("clean", 10, 51),
        description="times of the noise, as in t; clean: 0 if the parent saw clean images, else 1, the least noise",
    )

    @model_validator(mode="after")
    def _each_once(self) -> ChooseConfig:
        for field in ("blocks", "pools", "times"):
            values = getattr(self, field)
            if values != "all" and (not values or len(set(values)) < len(values)):
                raise FieldRuleError(field, f"{list(values)} is not accepted: expected at least one value, and each once")
        return self

    def resolved(self, *, sees_clean: bool) -> ChooseConfig:
        """A copy in which ``clean`` is a number; ``sees_clean`` says whether the parent saw clean images."""
        times = (t if isinstance(t, int) else 0 if sees_clean else 1 for t in self.times)
        return self.model_copy(update={"times": tuple(dict.fromkeys(times))})

    def places(self, model: ModelConfig) -> list[Place]:
        """The candidates in their order. ``clean`` has to be resolved."""
        blocks = range(1, model.depth + 1) if self.blocks == "all" else self.blocks
        pools = POOLS[model.family] if self.pools == "all" else self.pools
        times = [t for t in self.times if isinstance(t, int)]
        return [Place(block, pool, t) for block in blocks for pool in pools for t in times]


class SupervisedConfig(Frozen):
    """The training with labels whose representation is probed too: AdamW on clean images without a mask, cosine decay."""

    nimg: int = Field(ge=1, description="length in images seen; a multiple of batch")
    batch: int = Field(ge=1, description="images per optimiser step")
    lr_per_256: float = Field(default=1e-3, gt=0, description="peak learning rate for a batch of 256; scaled with the batch")
    warmup_nimg: int = Field(default=0, ge=0, description="images seen during linear warm-up from 0; less than nimg")
    weight_decay: float = Field(default=0.05, ge=0, description="weight decay of AdamW")

    @model_validator(mode="after")
    def _whole_batches(self) -> SupervisedConfig:
        if self.nimg % self.batch:
            raise FieldRuleError("nimg", f"{self.nimg} is not accepted: expected a multiple of batch = {self.batch}")
        if self.warmup_nimg >= self.nimg:
            raise FieldRuleError("warmup_nimg", f"{self.warmup_nimg} is not accepted: expected less than nimg = {self.nimg}")
        return self


class Place(NamedTuple):
    """Where a representation is read: the encoder's block (None: the last), the pool (None: the model's own) and t."""

    block: int | None
    pool: str | None
    t: int


class ProbeStage(Frozen):
    """Probes of a parent's raw weights: few-shot ridge (UMD paper, appendix), k nearest neighbours, a linear layer."""

    component: ClassVar[str] = "probe"

    kind: Literal["probe"] = Field(default="probe", description="probe: measure the representation of a parent's weights")
    parent: Name = Field(description="the stage whose weights are probed")
    snapshot: Snapshot | None = Field(
        default=None,
        description="point in the parent's training: images seen, or a share of its length in (0, 1]; null: its end",
    )
    shots: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(10, 100), description="few-shot ridge: numbers of training images per class; [] skips it"
    )
    draws: int = Field(
        default=5, ge=1, description="few-shot ridge: independent draws of the training images; the metric is their mean"
    )
    ridge: Penalty = Field(
        default=1024.0,
        description="few-shot ridge: the penalty, above 0; from a list, each draw takes the best by leave-one-out on its shots",
    )
    bias: float = Field(
        default=100.0, description="few-shot ridge: the constant appended to the features; its weight is penalised too"
    )
    knn: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(), description="nearest neighbours: numbers of neighbours k; [] skips it"
    )
    linear: LinearConfig | None = Field(
        default=None, description="linear probe: its settings, {} for the published ones; null skips it"
    )
    data: DataConfig | None = Field(
        default=None,
        description="the data set to probe on, with the trial's size and channels; null: the data set of the trial",
    )
    split: ScoredSplit = Field(
        default="test", description="the images that are scored: test, or validation to choose settings by the scores"
    )
    t: int | None = Field(
        default=None,
        ge=0,
        description="time of the noise on probed images, 0 for none; null: 0, or 51 if the parent never saw a clean image",
    )
    block: int | None = Field(
        default=None, ge=1, description="the encoder block, from 1, whose output is the representation; null: the last"
    )
    pool: Pool | None = Field(
        default=None,
        description="tokens averaged to the representation: class (all class tokens), first_class (the first of them) or "
        "patches; null: the model's own choice",
    )
    choose: ChooseConfig | None = Field(
        default=None,
        description="choose block, pool and t on the validation split; {}: among all blocks and pools at t = clean, 10 and 51; "
        "null: do not choose, use the fields block, pool and t",
    )
    supervised: SupervisedConfig | None = Field(
        default=None,
        description="also probe the same architecture trained with labels, to indicate the best accuracy that it could reach; "
        "null: do not",
    )

    @model_validator(mode="after")
    def _chooses_by_shots(self) -> ProbeStage:
        if self.choose is None:
            return self
        for field in ("t", "block", "pool"):
            if getattr(self, field) is not None:
                raise FieldRuleError(
                    field, f"{getattr(self, field)} is not accepted with choose, which chooses it: expected null"
                )
        if not self.shots:
            raise FieldRuleError("shots", "[] leaves nothing to choose by: expected numbers of shots, or choose=null")
        return self

    @model_validator(mode="after")
    def _measures_something(self) -> ProbeStage:
        if not self.shots and not self.knn and self.linear is None:
            raise FieldRuleError("shots", "[] leaves nothing to measure: expected shots, knn or linear")
        return self

    def scored_on(self, split: ScoredSplit) -> ProbeStage:
        """The same probes of the images of ``split``."""
        return self.model_copy(update={"split": split})

    @property
    def reads_all(self) -> bool:
        """Whether the stage needs every training image, and not only the few shots that are drawn."""
        return bool(self.knn) or self.linear is not None

    def identity(self, model: ModelConfig, noise: NoiseConfig, *, seed: int, parent_ema: bool) -> dict[str, Any]:
        """The probe's part of its key: the read-outs that are measured, and the noise if images are noised."""
        fields = self.model_dump(mode="json", exclude={"parent", "snapshot", "data"})  # the key has the data set elsewhere
        # Fields of later versions are part of a key only if they are set.
        for added in ("knn", "linear", "block", "pool", "supervised"):
            if not fields[added]:
                fields.pop(added)
        if self.split == "test":
            fields.pop("split")
        if not self.shots:
            for idle in ("draws", "ridge", "bias"):
                fields.pop(idle)
        if self.block == model.depth:
            fields.pop("block")
        if self.pool == POOLS[model.family][0] and model.family != "mae":  # an import of mae may state another default
            fields.pop("pool")
        noised = bool(self.t)
        if self.choose is None:
            fields.pop("choose")
        else:
            places = self.choose.places(model)
            noised = any(place.t for place in places)
            fields["choose"] = [list(place) for place in places]
        return {"stage": fields, "seed": seed} | ({"noise": noise.model_dump(mode="json")} if noised else {})
