"""Can this machine run the benchmark? Each finding passes, warns or fails, and says what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import filelock
import psutil
import torch

from umd_bench.config.errors import UserError
from umd_bench.data.pack import open_pack
from umd_bench.data.sources import SOURCES
from umd_bench.orchestration.ray_check import check_ray
from umd_bench.store.files import link_new, require_writable, write_atomic

LOW_DISK_BYTES = 5 * 10**9
LOW_MEMORY_BYTES = 2 * 10**9
LIBRARIES = ("torch", "torchvision", "timm", "torch-fidelity", "ray", "optuna", "mlflow", "pandas", "submitit", "pydantic")


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, how it is, and the remedy where it is not well."""

    level: Literal["pass", "warn", "fail"]
    what: str
    remedy: str = ""

    @property
    def failed(self) -> bool:
        """Whether this stops a sweep."""
        return self.level == "fail"

    def line(self) -> str:
        """The finding as rich markup."""
        colour = {"pass": "green", "warn": "yellow", "fail": "red"}[self.level]
        return f"[{colour}]{self.level}[/]  {self.what}{f': {self.remedy}' if self.remedy else ''}"


def examine(results: Path, data_root: Path) -> list[Finding]:
    """Every finding, in the order in which a newcomer would meet them."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        _versions,
        _device,
        lambda: _folder(results, "the results folder"),
        lambda: _folder(data_root, "the data folder"),
        lambda: _file_system(results),
        lambda: _data(data_root),
        _memory,
        _loopback,
        lambda: (Finding(*line) for line in check_ray()),
    ]
    return [finding for check in checks for finding in check()]


def _versions() -> Iterator[Finding]:
    missing = []
    found = [f"python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            found.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(library)
    yield Finding("pass", ", ".join(found))
    if missing:
        yield Finding("fail", f"not installed: {', '.join(missing)}", "run `make install`, or pip install umd-bench again")


def _device() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding("pass", f"{cores} cores, CUDA devices: {names}")
    else:
        yield Finding("pass", f"{cores} cores, no CUDA device: stages run on the CPU")


def _folder(folder: Path, what: str) -> Iterator[Finding]:
    try:
        require_writable(folder, what)
    except UserError as error:
        yield Finding("fail", str(error))
        return
    free = shutil.disk_usage(folder).free
    text = f"{what} {folder} can be written, {free / 1e9:.0f} GB free"
    yield Finding("pass", text) if free > LOW_DISK_BYTES else Finding("warn", text, "free some, or give another folder")


def _file_system(results: Path) -> Iterator[Finding]:
    """Locks, hard links and renames are what keeps two processes from spoiling one stage."""
    try:
        with tempfile.TemporaryDirectory(dir=results) as name:
            folder = Path(name)
            write_atomic(folder / "a", b"1")
            first, second = link_new(folder / "a", folder / "b"), link_new(folder / "a", folder / "b")
            with filelock.FileLock(folder / "lock"):
                try:
                    filelock.FileLock(folder / "lock", is_singleton=False).acquire(blocking=False)
                    locks = False
                except filelock.Timeout:
                    locks = True
    except OSError as error:
        yield Finding(
            "fail", f"the file system of {results} lacks rename, link or lock ({error.strerror})", "use a local folder"
        )
        return
    if first and not second and locks:
        yield Finding("pass", "locks, links and renames work there")
    else:
        yield Finding("fail", f"locks or links do not exclude each other in {results}", "use a folder on another file system")


def _data(data_root: Path) -> Iterator[Finding]:
    for name, facts in SOURCES.items():
        if facts.size is None:  # packed by those who need it, at the size they need
            continue
        try:
            manifest = open_pack(name, data_root).manifest
        except UserError as error:
            yield Finding("warn", f"data set {name} is not at hand", str(error))
        else:
            yield Finding("pass", f"data set {name}: {manifest.counts}")


def _memory() -> Iterator[Finding]:
    free = psutil.virtual_memory().available
    text = f"{free / 1e9:.1f} GB of memory available"
    yield Finding("pass", text) if free > LOW_MEMORY_BYTES else Finding("warn", text, "use --workers 1")


def _loopback() -> Iterator[Finding]:
    try:
        with socket.socket() as server, socket.socket() as client:
            server.bind(("127.0.0.1", 0))
            server.listen()
            client.settimeout(2)
            client.connect(server.getsockname())
    except OSError as error:
        yield Finding("fail", f"loopback connections fail ({error.strerror})", "Ray needs them; use --on inline")
    else:
        yield Finding("pass", "loopback connections work, as Ray needs")
