"""What the device can do at most, measured in the same run as what is held against it: large square matrix products."""

from __future__ import annotations

from typing import Literal

import torch

from umd_bench.bench.timing.rates import Work
from umd_bench.config.errors import FieldError, one_of

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")
SIDES = {"cpu": 2048, "cuda": 8192}  # of the matrices
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def precisions_of(names: list[str] | None) -> tuple[Precision, ...]:
    """Those named, each once and fp32 first, or both. Raises :class:`FieldError` for another word."""
    for name in names or ():
        if name not in PRECISIONS:
            raise FieldError("--precision", name, one_of(PRECISIONS))
    return tuple(p for p in PRECISIONS if not names or p in names)


def matrix_product(precision: Precision, device: torch.device) -> Work:
    """A product of two square matrices of :data:`SIDES`; a call gives its floating-point operations.

    fp32 is what the present settings make of it: on a GPU whole fp32 unless TF32 is allowed.
    """
    n = SIDES[device.type]
    a, b, out = (torch.randn(n, n, device=device).to(_DTYPES[precision]) for _ in range(3))

    def product() -> int:
        torch.mm(a, b, out=out)
        return 2 * n**3

    return product
