"""Checks of features that all metrics share."""

from __future__ import annotations

import torch
from torch import Tensor

from umd_bench.config.errors import UserError


def checked_features(x: Tensor) -> Tensor:
    """``x`` [N, D] of any float type as float64 on the CPU.

    Raises :class:`UserError` for another shape or dtype, and for a NaN or infinity.
    """
    if x.ndim != 2 or not x.is_floating_point():
        raise UserError(f"statistics of a {x.dtype} tensor of shape {list(x.shape)} are not possible: expected floats [N, D]")
    x = x.detach().to("cpu", torch.float64)
    if not x.isfinite().all():
        bad = int((~x.isfinite().all(1)).sum())
        raise UserError(f"{bad} of {len(x)} samples have features that are NaN or infinite")
    return x


def require_same_width(a: int, b: int) -> None:
    """Raise :class:`UserError` if two sets have different numbers of features."""
    if a != b:
        raise UserError(f"features of {a} and of {b} dimensions cannot be compared: expected features of the same extractor")
