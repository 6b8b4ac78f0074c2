"""What an evaluation stage hands back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Fact = str | int | float | bool | list[int] | list[float] | list[str] | None


@dataclass(frozen=True)
class StageResult:
    """``metrics`` are the numbers, ``facts`` everything that says what they are, ``cost`` what depends on the machine.

    ``facts["by_metric"]``, where it is there, holds for single metrics what is true of them only, and overrules the rest.
    """

    metrics: dict[str, float]
    facts: Mapping[str, Fact | dict[str, dict[str, Fact]]]
    cost: dict[str, float] = field(default_factory=dict)
