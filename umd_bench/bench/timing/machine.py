"""The machine that a measurement was made on: processor, versions, threads, and whether other programs were running."""

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
FLAGS = ("amx_tile", "amx_bf16", "avx512_bf16", "avx512f", "avx2", "sve", "bf16")  # they decide how fast matrix products are
BUSY_LOAD = 0.25  # running processes per core, averaged over the last minute; a higher load disturbs a measurement


@dataclass(frozen=True)
class Machine:
    """The machine and the software.

    ``load`` is the mean number of running processes in the minute before the measurement; None if unknown.
    """

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
        """A sentence if other programs were running when the measurement began."""
        if self.load is None or self.load <= BUSY_LOAD * self.cores:
            return None
        return (
            f"other programs are running: {self.load:.2f} running processes on {self.cores} cores in the last minute; "
            "ratios are roughly right, absolute rates are not"
        )

    @property
    def line(self) -> str:
        """Everything in one line."""
        flags = ", ".join(self.flags) or "none of " + ", ".join(FLAGS)
        load = "unknown" if self.load is None else f"{self.load:.2f}"
        return (
            f"{self.date[:16].replace('T', ' ')} UTC; {self.device} ({self.device_name}; {flags}), {self.cores} cores, "
            f"{self.threads} threads, torch {self.torch}, Python {self.python}, load at the start {load}"
        )


def bench_device(name: str) -> torch.device:
    """The device that ``--device`` names. Raises :class:`FieldError` for an unknown name, and for cuda if there is no GPU."""
    if name not in DEVICES:
        raise FieldError("--device", name, one_of(DEVICES))
    return pick_device(name)


def machine_facts(device: torch.device, threads: int | None, device_name: str) -> Machine:
    """The facts of this machine now. ``device_name`` is the model name of the device.

    ``threads``, if given, becomes torch's number of threads.
    """
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
    """The flags among :data:`FLAGS` that the first processor has; an empty tuple on systems other than Linux."""
    listed = cpu_flags()
    return tuple(flag for flag in FLAGS if flag in listed)
