"""Which Ray runs stages, and what share of a GPU a stage asks it for. Nothing here changes a result, so nothing is in a key."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

from umd_bench.config.documents.frozen import Frozen


def _address(value: str) -> str:
    if value != "auto" and not re.fullmatch(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}", value):
        raise ValueError(
            f"{value!r} is not accepted: expected HOST:PORT of a running Ray, as `ray start` prints it, or auto for the one of "
            "this machine"
        )
    return value


def _gpus(value: float) -> float:
    if value < 0 or (value > 1 and value != int(value)):
        raise ValueError(f"{value} is not accepted: expected a share of one GPU between 0 and 1, or a whole number of GPUs")
    return value


class RayConfig(Frozen):
    """``address`` None starts a Ray of the command's own. ``gpus`` None divides what a local Ray has among its workers,
    and is refused by a cluster that has GPUs."""

    address: Annotated[str, AfterValidator(_address)] | None = None
    gpus: Annotated[float, AfterValidator(_gpus)] | None = None
