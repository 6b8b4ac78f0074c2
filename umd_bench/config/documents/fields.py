"""Types of fields that several configuration models share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

Ratio = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Metric = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*\.[A-Za-z0-9_.:@-]+$")]  # stage.metric
NAME = r"^[a-z0-9][a-z0-9_.:-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=80)]


def _snapshot(value: float) -> float:
    if value > 0 and (isinstance(value, int) or value <= 1):
        return value
    raise ValueError(
        f"{value} is not accepted: expected images seen, a whole number from 1, or a share of the parent in (0, 1]"
    )


# Where on a parent: images seen, or a share of its length (1.0 is its end).
Snapshot = Annotated[int | float, AfterValidator(_snapshot)]
