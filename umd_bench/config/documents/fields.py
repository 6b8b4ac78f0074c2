"""The strict, immutable base class of all configuration models, and the types of common fields."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """An immutable model: an unknown field is an error, and so is a number that is infinite or NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Ratio = Annotated[float, Field(ge=0, lt=1)]
Share = Annotated[float, Field(ge=0, le=1)]
METRIC = r"^[a-z0-9][a-z0-9_]*\.[A-Za-z0-9_.:@-]+$"
Metric = Annotated[str, Field(pattern=METRIC)]  # stage.metric
NAME = r"^[a-z0-9][a-z0-9_.:-]*$"
Name = Annotated[str, Field(pattern=NAME, max_length=80)]


def _snapshot(value: float) -> float:
    if value > 0 and (isinstance(value, int) or value <= 1):
        return value
    raise ValueError(
        f"{value} is not accepted: expected a number of images seen (a whole number from 1), or a share of the parent's "
        "training in (0, 1]"
    )


# A point in the parent's training: images seen, or a share of its length (1.0 is the end).
Snapshot = Annotated[int | float, AfterValidator(_snapshot)]
