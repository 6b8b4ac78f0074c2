"""What a measurement was made on: the processor and what it can do, versions, threads, and whether others were at work."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime

import torch

from umd_bench.config.errors import FieldError, one_of
from umd_bench.engine.device import pick_device
from umd_bench.machine import cpu_flags, usable_cores

DEVICES = ("auto", "cpu", "cuda")
FLAGS = ("amx_tile", "amx_bf16", "avx512_bf16", "avx512f", "avx2", "sve", "bf16")  # what decides how fast matrix products are
BUSY = 0.25  # running processes a core, on the mean of the last minute, from which a measurement is disturbed


@dataclass(frozen=True)
class Machine:
    """The facts. ``load`` is the mean number of running processes in the minute before, None where the system tells none."""

    device: str
    device_name: str
    flags: tuple[str, ...]
    cores: int
    threads: int
    torch: str
    python: str
    load: float | None
    date: str  # UTC, ISO 8601

    @property
    def warning(self) -> str | None:
        """One sentence where others were at work when the measurement began."""
        if self.load is None or self.load <= BUSY * self.cores:
            return None
        return (
            f"others are at work: {self.load:.2f} running processes on {self.cores} cores in the last minute; "
            "ratios hold roughly, absolute rates do not"
        )

    @property
    def line(self) -> str:
        """All of it in one line."""
        flags = ", ".join(self.flags) or "none of " + ", ".join(FLAGS)
        load = "unknown" if self.load is None else f"{self.load:.2f}"
        return (
            f"{self.date[:16].replace('T', ' ')} UTC; {self.device} ({self.device_name}; {flags}), {self.cores} cores, "
            f"{self.threads} threads, torch {self.torch}, Python {self.python}, load at the start {load}"
        )


def device_here(name: str) -> torch.device:
    """The device that ``--device`` picks. Raises :class:`FieldError` for another word, and for cuda where there is none."""
    if name not in DEVICES:
        raise FieldError("--device", name, one_of(DEVICES))
    return pick_device(name)


def machine_facts(device: torch.device, threads: int | None, device_name: str) -> Machine:
    """The facts of now, with the number of threads set where it is given; ``device_name`` is its maker's name for it."""
    if threads is not None:
        torch.set_num_threads(threads)
    return Machine(
        device=device.type,
        device_name=device_name,
        flags=_flags(),
        cores=usable_cores(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        load=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _flags() -> tuple[str, ...]:
    """Those of :data:`FLAGS` that Linux lists for the first processor; none on other systems."""
    listed = cpu_flags()
    return tuple(flag for flag in FLAGS if flag in listed)
