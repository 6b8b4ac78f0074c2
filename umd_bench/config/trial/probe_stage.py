"""The stage that probes a representation: which representation, and with which read-outs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from umd_bench.config.documents.fields import Name, Snapshot
from umd_bench.config.documents.frozen import Frozen
from umd_bench.config.errors import FieldRuleError
from umd_bench.config.trial.data import DataConfig

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
    """The linear probe trained by LARS (He et al., arXiv 2111.06377, appendix A.1) on features that are made once."""

    lr_per_256: tuple[Positive, ...] = Field(
        default=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0),
        min_length=1,
        description="peak learning rates for a batch of 256, trained at once; of several the best on held_out is taken",
    )
    batch: int = Field(default=4096, ge=2, description="images a step; at most all there are")
    epochs: int = Field(default=100, ge=1)
    warmup_epochs: int = Field(default=5, ge=0, description="epochs of linear warm-up from 0; cosine to 0 follows")
    weight_decay: float = Field(default=5e-5, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    held_out: float = Field(
        default=0.1, gt=0, lt=1, description="share of each class's training images that the learning rate is chosen on"
    )

    @model_validator(mode="after")
    def _warmup_ends(self) -> LinearConfig:
        if self.warmup_epochs >= self.epochs:
            raise FieldRuleError(
                "warmup_epochs", f"{self.warmup_epochs} is not accepted: expected less than epochs = {self.epochs}"
            )
        if len(set(self.lr_per_256)) < len(self.lr_per_256):
            raise FieldRuleError("lr_per_256", f"{list(self.lr_per_256)} holds a rate twice: expected each once")
        return self


class ProbeStage(Frozen):
    """Probes of a parent's raw weights: few-shot ridge (UMD paper, appendix), k nearest neighbours, a linear layer."""

    kind: Literal["probe"] = "probe"
    parent: Name
    snapshot: Snapshot | None = None
    shots: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(10, 100), description="few-shot ridge; [] for none")
    draws: int = Field(default=5, ge=1, description="independent draws of the shots; the metric is their mean")
    ridge: Penalty = Field(default=1024.0, description="the penalty; of a list, each draw takes the best of leaving one out")
    bias: float = Field(default=100.0, description="the appended constant; the bias is regularised too")
    knn: tuple[Annotated[int, Field(ge=1)], ...] = Field(default=(), description="numbers of neighbours; [] for none")
    linear: LinearConfig | None = Field(default=None, description="null for none, {} for the paper's protocol")
    data: DataConfig | None = Field(default=None, description="None: the trial's; another of the same size and channels")
    t: int | None = Field(default=None, ge=0, description="None: 0, or 51 where the parent saw no clean image")
    block: int | None = Field(default=None, ge=1, description="the encoder block whose output is read; None: the last")
    pool: Pool | None = Field(
        default=None,
        description="class (mean of the class tokens), first_class (one of them) or patches (mean); None: the model's own",
    )

    @model_validator(mode="after")
    def _measures_something(self) -> ProbeStage:
        if not self.shots and not self.knn and self.linear is None:
            raise FieldRuleError("shots", "[] leaves nothing to measure: expected shots, knn or linear")
        return self

    @property
    def reads_all(self) -> bool:
        """Whether every training image is needed, and not only those that few shots draw."""
        return bool(self.knn) or self.linear is not None
