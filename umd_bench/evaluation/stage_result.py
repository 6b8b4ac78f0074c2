"""The result of an evaluation stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Fact = str | int | float | bool | list[int] | list[float] | list[str] | None


@dataclass(frozen=True)
class StageResult:
    """``metrics`` are the numbers, ``facts`` say how they were made, ``cost`` depends on the machine (seconds, images/s).

    ``facts["by_metric"]``, if present, holds facts of single metrics; for these metrics they override the other facts.
    """

    metrics: dict[str, float]
    facts: Mapping[str, Fact | dict[str, dict[str, Fact]]]
    cost: dict[str, float] = field(default_factory=dict)
