"""Can this machine run the benchmark? Each finding passes, warns or fails, and says what to do."""

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
RAY_PORTS = range(10_002, 20_000)  # of Ray's workers, unless a cluster was started with others
PORTS_NEEDED = 64  # a few for each worker and its raylet, one for each stage on several devices


@dataclass(frozen=True)
class Aim:
    """What the machine is to be fit for: ``slurm`` whether jobs on a cluster are, with the settings ``cluster``.

    ``probe_seconds`` is how long a small job on a node may take, None where none is to be submitted; ``tracking`` looks at the
    tracking store and says how it is, or raises :class:`UserError`.
    """

    slurm: bool = False
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    probe_seconds: float | None = None
    tracking: Callable[[], str] | None = None


def examine(results: Path, data_root: Path, aim: Aim | None = None) -> Iterator[Finding]:
    """Every finding, in the order in which a newcomer would meet them, each as soon as it is made."""
    aim = aim or Aim()
    yield from _versions()
    yield from _device()
    yield from examine_folder(results, "the results folder")
    yield from examine_folder(data_root, "the data folder")
    if results.is_dir():
        yield from examine_locks(results)
        yield from examine_sharing(results, "the results folder", locks=True, asked=aim.slurm)
    if data_root.is_dir():
        yield from examine_sharing(data_root, "the data folder", locks=False, asked=aim.slurm)
    yield from _data(data_root)
    yield from _memory()
    yield from _loopback()
    yield from _ports()
    yield from check_ray()
    if aim.tracking is not None:
        yield from _tracking(aim.tracking)
    yield from examine_slurm(aim.cluster, asked=aim.slurm)
    if aim.probe_seconds is not None:
        yield from probe_node(results, data_root, aim.cluster, aim.probe_seconds)


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
    cores = usable_cores()
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        yield Finding("pass", f"{cores} cores, CUDA devices: {names}")
    else:
        yield Finding("pass", f"{cores} cores, no CUDA device: stages run on the CPU")


def _data(data_root: Path) -> Iterator[Finding]:
    for name, facts in DATASETS.items():
        if facts.size is None:  # packed by those who need it, at the size they need
            continue
        try:
            manifest = open_pack(name, data_root).manifest
        except UserError as error:
            yield Finding("warn", f"data set {name} is not at hand", str(error))
        else:
            counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
            yield Finding("pass", f"data set {name}: {counts}")


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


def _ports() -> Iterator[Finding]:
    """Ray's workers listen on ports of a range; the processes of one stage on several devices meet on any free one."""
    with ExitStack() as held:
        in_range = sum(_listens(held, port) for port in RAY_PORTS[:: len(RAY_PORTS) // (2 * PORTS_NEEDED)])
        anywhere = sum(_listens(held, 0) for _ in range(PORTS_NEEDED))
    text = (
        f"enough ports are free for Ray's workers ({RAY_PORTS.start} to {RAY_PORTS.stop - 1}) and for stages on several devices"
    )
    if min(in_range, anywhere) >= PORTS_NEEDED:
        yield Finding("pass", text)
    else:
        scarce = f"{RAY_PORTS.start} to {RAY_PORTS.stop - 1}" if in_range < PORTS_NEEDED else "that the system gives out"
        yield Finding("warn", f"most ports {scarce} are taken or forbidden", "end what holds them, or use --on inline")


def _listens(held: ExitStack, port: int) -> bool:
    try:
        server = held.enter_context(socket.socket())
        server.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True


def _tracking(look: Callable[[], str]) -> Iterator[Finding]:
    try:
        yield Finding("pass", look())
    except UserError as error:  # which no stage minds
        yield Finding("warn", str(error), "give another --mlflow URI, or --mlflow off")
