"""The device that a stage computes on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from umd_bench.config.errors import FieldError
from umd_bench.machine import cpu_name


def pick_device(name: str) -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda``; ``auto`` is cuda if this process sees a CUDA device.

    Raises :class:`FieldError` for ``cuda`` without a CUDA device.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise FieldError("resources.device", name, "expected auto or cpu, since no CUDA device is visible here")
    return torch.device("cuda" if available and name != "cpu" else "cpu")


def device_name(name: str) -> str:
    """The manufacturer's name of the GPU or processor that :func:`pick_device` picks for ``name``."""
    device = pick_device(name)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


@contextmanager
def deterministic_kernels(device: torch.device) -> Iterator[None]:
    """On CUDA, use deterministic kernels where they exist (above all in the backward pass of fused attention)."""
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it when it starts
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(mode=True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before)
