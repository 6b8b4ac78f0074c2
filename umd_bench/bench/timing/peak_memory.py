"""Measures how much memory a piece of work takes at its peak, in addition to the memory in use before it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """The memory at the peak of one call minus the memory before the call, in bytes.

    On a GPU this is the allocated memory, on a CPU the resident memory of this process. None on a CPU if the system cannot
    reset the process's former peak (only Linux can).
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
