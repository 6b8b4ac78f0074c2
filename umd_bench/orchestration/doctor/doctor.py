"""Checks whether this machine, and optionally a Slurm cluster, can run the benchmark; each finding passes, warns or fails."""

from __future__ import annotations

import importlib.metadata
import platform
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.data.datasets import DATASETS
from umd_bench.data.open_data import open_pack
from umd_bench.machine import usable_cores
from umd_bench.orchestration.doctor.finding import Finding
from umd_bench.orchestration.doctor.folders import examine_folder, examine_locks, examine_sharing
from umd_bench.orchestration.doctor.node_probe import probe_node
from umd_bench.orchestration.doctor.ray import check_ray
from umd_bench.orchestration.doctor.slurm import examine_slurm

LOW_MEMORY_BYTES = 2 * 10**9
LIBRARIES = ("torch", "torchvision", "timm", "torch-fidelity", "ray", "optuna", "mlflow", "pandas", "submitit", "pydantic")
RAY_PORTS = range(10_002, 20_000)  # the default ports of Ray's workers
PORTS_NEEDED = 64  # Ray takes a few for each worker and its raylet; a stage on several devices takes one


@dataclass(frozen=True)
class DoctorOptions:
    """The checks beyond the machine itself.

    ``slurm`` says that jobs will go to Slurm with the settings ``cluster``. Then a problem that would stop them is a failure
    instead of a warning. ``probe_seconds`` is how long to wait for a small job on a node; None submits no job.
    ``check_tracking`` describes the tracking store in one line or raises :class:`UserError`; None skips that check.
    """

    slurm: bool = False
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    probe_seconds: float | None = None
    check_tracking: Callable[[], str] | None = None


def examine(results: Path, data_root: Path, options: DoctorOptions | None = None) -> Iterator[Finding]:
    """Yield each finding as soon as its check has ended: the machine, the folders, Ray, tracking, Slurm."""
    options = options or DoctorOptions()
    yield from _versions()
    yield from _device()
    yield from examine_folder(results, "the results folder")
    yield from examine_folder(data_root, "the data folder")
    if results.is_dir():
        yield from examine_locks(results)
        yield from examine_sharing(results, "the results folder", locks=True, required=options.slurm)
    if data_root.is_dir():
        yield from examine_sharing(data_root, "the data folder", locks=False, required=options.slurm)
    yield from _data(data_root)
    yield from _memory()
    yield from _loopback()
    yield from _ports()
    yield from check_ray()
    if options.check_tracking is not None:
        yield from _tracking(options.check_tracking)
    yield from examine_slurm(options.cluster, required=options.slurm)
    if options.probe_seconds is not None:
        yield from probe_node(results, data_root, options.cluster, options.probe_seconds)


def _versions() -> Iterator[Finding]:
    missing = []
    installed = [f"python {platform.python_version()}"]
    for library in LIBRARIES:
        try:
            installed.append(f"{library} {importlib.metadata.version(library)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(library)
    yield Finding("pass", ", ".join(installed))
    if missing:
        yield Finding("fail", f"not installed: {', '.join(missing)}", "run `make install`, or install umd-bench again with pip")


def _device() -> Iterator[Finding]:
    cores = usable_cores()
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding("pass", f"{cores} cores, CUDA devices: {names}")
    else:
        yield Finding("pass", f"{cores} cores, no CUDA device: stages run on the CPU")


def _data(data_root: Path) -> Iterator[Finding]:
    for name, facts in DATASETS.items():
        if facts.size is None:  # a user packs it at a size of their choice
            continue
        try:
            manifest = open_pack(name, data_root).manifest
        except UserError as error:
            yield Finding("warn", f"data set {name} is missing", str(error))
        else:
            counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
            yield Finding("pass", f"data set {name}: {counts}")


def _memory() -> Iterator[Finding]:
    free = psutil.virtual_memory().available
    text = f"{free / 1e9:.1f} GB of memory available"
    yield Finding("pass", text) if free > LOW_MEMORY_BYTES else Finding("warn", text, "run one stage at a time: --workers 1")


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
        yield Finding("pass", "loopback connections work, which Ray needs")


def _ports() -> Iterator[Finding]:
    """Ray's workers listen in a fixed range; the processes of a stage on several devices meet on any free port."""
    with ExitStack() as sockets:
        in_range = sum(_can_bind(sockets, port) for port in RAY_PORTS[:: len(RAY_PORTS) // (2 * PORTS_NEEDED)])
        anywhere = sum(_can_bind(sockets, 0) for _ in range(PORTS_NEEDED))
    text = (
        f"enough ports are free for Ray's workers ({RAY_PORTS.start} to {RAY_PORTS.stop - 1}) and for stages on several devices"
    )
    if min(in_range, anywhere) >= PORTS_NEEDED:
        yield Finding("pass", text)
    else:
        scarce = f"in {RAY_PORTS.start} to {RAY_PORTS.stop - 1}" if in_range < PORTS_NEEDED else "that the system assigns"
        yield Finding(
            "warn", f"most ports {scarce} are in use or forbidden", "end the programs that use them, or use --on inline"
        )


def _can_bind(sockets: ExitStack, port: int) -> bool:
    """Whether a socket can be bound to the port (0: any); it stays bound until ``sockets`` is closed."""
    try:
        server = sockets.enter_context(socket.socket())
        server.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def _tracking(check: Callable[[], str]) -> Iterator[Finding]:
    try:
        yield Finding("pass", check())
    except UserError as error:  # a warning, since stages run without tracking
        yield Finding("warn", str(error), "give another --mlflow URI, or --mlflow off")
