"""What an evaluation stage hands back."""

from __future__ import annotations

from dataclasses import dataclass, field

Fact = str | int | float | bool | list[int] | list[float] | None


@dataclass(frozen=True)
class StageResult:
    """``metrics`` are the numbers, ``facts`` everything that says what they are, ``cost`` what depends on the machine."""

    metrics: dict[str, float]
    facts: dict[str, Fact]
    cost: dict[str, float] = field(default_factory=dict)
