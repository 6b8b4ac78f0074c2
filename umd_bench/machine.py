"""Facts of the machine that this process runs on. Imports no torch."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path


def usable_cores() -> int:
    """How many cores this process may use: its CPU affinity, or all cores where the system has no affinity."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def cpu_lines() -> tuple[str, ...]:
    """The lines of ``/proc/cpuinfo``; empty on systems other than Linux."""
    try:
        return tuple(Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines())
    except OSError:
        return ()


def cpu_name() -> str:
    """The processor's model name, or its architecture if Linux names no model; on other systems ``platform.processor()``."""
    lines = cpu_lines()
    if not lines:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def cpu_flags() -> frozenset[str]:
    """The instruction set extensions that Linux lists for the first processor; empty on other systems."""
    return next(
        (frozenset(line.partition(":")[2].split()) for line in cpu_lines() if line.startswith(("flags", "Features"))),
        frozenset(),
    )
