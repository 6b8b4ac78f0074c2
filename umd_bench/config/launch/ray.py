"""Which Ray runs the stages, and how much of a GPU a stage requests. No setting changes a result or is part of a key."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from umd_bench.config.documents.fields import Frozen


def _address(value: str) -> str:
    if value != "auto" and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", value):
        raise ValueError(
            f"{value!r} is not accepted: expected HOST:PORT of a running Ray, as `ray start` prints it, or auto for the Ray of "
            "this machine"
        )
    return value


def _gpus(value: float) -> float:
    if value < 0 or (value > 1 and value != int(value)):
        raise ValueError(f"{value} is not accepted: expected a share of one GPU between 0 and 1, or a whole number of GPUs")
    return value


class RayConfig(Frozen):
    """The Ray to connect to, and the GPUs of a stage."""

    address: Annotated[str, AfterValidator(_address)] | None = Field(
        default=None, description="HOST:PORT of a running Ray, or auto for the Ray of this machine; null starts a new one"
    )
    gpus: Annotated[float, AfterValidator(_gpus)] | None = Field(
        default=None,
        description="GPUs per stage: 0, a share of one GPU in (0, 1], or a whole number; null: each worker gets an equal share "
        "of a local Ray's GPUs, at most one GPU; on a cluster with GPUs a number is needed",
    )
