"""The stage that probes a representation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from umd_bench.config.data import DataConfig
from umd_bench.config.fields import Name, Snapshot
from umd_bench.config.frozen import Frozen


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
