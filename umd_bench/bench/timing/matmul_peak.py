"""The FLOP/s that a device reaches on large matrix products: the limit that a training step is compared with."""

from __future__ import annotations

from typing import Literal

import torch

from umd_bench.bench.timing.throughput import Work
from umd_bench.config.errors import FieldError, one_of

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
SIDES = {"cpu": 2048, "cuda": 8192}  # rows and columns of the matrices
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def precisions_of(names: list[str] | None) -> tuple[Precision, ...]:
    """The named precisions, fp32 first; both if none is named. Raises :class:`FieldError` for an unknown name."""
    for name in names or ():
        if name not in PRECISIONS:
            raise FieldError("--precision", name, one_of(PRECISIONS))
    return tuple(p for p in PRECISIONS if not names or p in names)


def matrix_product(precision: Precision, device: torch.device) -> Work:
    """A function that multiplies two square matrices (:data:`SIDES`) and returns how many FLOPs that takes.

    fp32 follows torch's present settings: on a GPU it is full fp32 unless TF32 is allowed.
    """
    n = SIDES[device.type]
    a, b, out = (torch.randn(n, n, device=device).to(_DTYPES[precision]) for _ in range(3))

    def product() -> int:
        torch.mm(a, b, out=out)
        return 2 * n**3

    return product
