"""Measures the peak memory of a piece of work, beyond the memory that was in use before."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes at the peak of one call minus bytes before it: allocated on a GPU, or resident of this process on a CPU.

    None on a CPU if the system cannot reset the process's former peak (only Linux can).
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    try:
        trim = ctypes.CDLL(None).malloc_trim
        trim(0)  # memory that was freed but not returned to the system would hide new allocations
        _RESET.write_text("5", encoding="ascii")  # reset the peak, see proc(5)
        before = _kilobytes("VmRSS")
    except (AttributeError, OSError):
        return None
    work()
    return max(0, _kilobytes("VmHWM") - before) * 1024


def _kilobytes(name: str) -> int:
    line = next(line for line in _STATUS.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return int(line.split()[1])
