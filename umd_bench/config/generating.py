"""The stage that draws samples and scores them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from umd_bench.config.errors import FieldRuleError
from umd_bench.config.fields import Name, Snapshot
from umd_bench.config.frozen import Frozen


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
