"""The executors by name. A new one is a module in this package and a row of :data:`EXECUTORS`.

The libraries of an executor (Ray, submitit) are imported only when it is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from umd_bench.config.errors import UserError, one_of
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.config.launch.ray import RayConfig
from umd_bench.orchestration.executors.contract import Executor
from umd_bench.orchestration.executors.jobs.queues.contract import Queue
from umd_bench.orchestration.stage_process.entry_point import RUN_STAGE


@dataclass(frozen=True)
class StartOptions:
    """The settings of an executor.

    Args:
        root: The results folder.
        data_root: The data folder.
        workers: How many stages run at a time, where the executor has no queue of its own.
        threads: CPU threads of a stage.
        devices: The most devices that one stage takes.
        cluster: The requests of a job; for Slurm and submitit's local jobs.
        entry_point: The function that runs a stage, as ``package.module:name``.
        ray: Which Ray to use, and how many of its GPUs a stage takes.
    """

    root: Path
    data_root: Path
    workers: int
    threads: int
    devices: int = 1
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    entry_point: str = RUN_STAGE
    ray: RayConfig = field(default_factory=RayConfig)


@dataclass(frozen=True)
class CheckOptions:
    """The settings that an executor can check before it starts; ``devices`` are all numbers of devices that stages take."""

    cluster: ClusterConfig
    ray: RayConfig
    threads: int
    devices: frozenset[int]


def _accept(options: CheckOptions) -> None:
    """Accept all settings: this executor can refuse none before it starts."""


@dataclass(frozen=True)
class Entry:
    """How to start an executor, and how to check its settings without starting or writing anything.

    Both raise :class:`UserError` for settings that the executor refuses.
    """

    start: Callable[[StartOptions], Executor]
    check: Callable[[CheckOptions], None] = _accept


def _start_inline(options: StartOptions) -> Executor:
    from umd_bench.orchestration.executors.inline import InlineExecutor

    return InlineExecutor(options.root, options.data_root, entry_point=options.entry_point)


def _start_ray(options: StartOptions) -> Executor:
    from umd_bench.orchestration.executors.ray.executor import RayExecutor

    return RayExecutor(
        options.root,
        options.data_root,
        workers=options.workers * options.devices,  # one actor per device
        threads=options.threads,
        devices=options.devices,
        config=options.ray,
        entry_point=options.entry_point,
    )


def _check_ray(options: CheckOptions) -> None:
    """Check that a Ray answers at the address. Its GPUs and free CPUs are known only after this process has joined it."""
    if options.ray.address is not None:
        from umd_bench.orchestration.executors.ray.running_ray import reachable

        reachable(options.ray.address)


def _start_submitit_local(options: StartOptions) -> Executor:
    from umd_bench.orchestration.executors.jobs.queues.local import LocalQueue

    return _start_jobs(options, LocalQueue(options.workers))


def _start_slurm(options: StartOptions) -> Executor:
    from umd_bench.orchestration.executors.jobs.queues.slurm import SlurmQueue

    queue = SlurmQueue(options.cluster, threads=options.threads)
    queue.check(options.devices)
    return _start_jobs(options, queue)


def _check_slurm(options: CheckOptions) -> None:
    """Have Slurm test a job on each number of devices."""
    from umd_bench.orchestration.executors.jobs.queues.slurm import SlurmQueue

    queue = SlurmQueue(options.cluster, threads=options.threads)
    for devices in sorted(options.devices):
        queue.check(devices)


def _start_jobs(options: StartOptions, queue: Queue) -> Executor:
    from umd_bench.orchestration.executors.jobs.executor import SubmititExecutor

    return SubmititExecutor(
        options.root,
        options.data_root,
        queue,
        options.cluster,
        threads=options.threads,
        devices=options.devices,
        entry_point=options.entry_point,
    )


EXECUTORS: dict[str, Entry] = {
    "inline": Entry(_start_inline),
    "ray": Entry(_start_ray, _check_ray),
    "submitit-local": Entry(_start_submitit_local),
    "slurm": Entry(_start_slurm, _check_slurm),
}


def check_name(name: str) -> None:
    """Raise :class:`UserError` for a name that no executor has."""
    if name not in EXECUTORS:
        raise UserError(f"--on {name!r} is not accepted: {one_of(EXECUTORS)}")


def check_settings(name: str, cluster: ClusterConfig, ray: RayConfig, *, threads: int, devices: Iterable[int]) -> None:
    """Raise :class:`UserError` for settings that can be refused without starting or writing anything."""
    check_name(name)
    EXECUTORS[name].check(CheckOptions(cluster, ray, threads, frozenset(devices)))


def start_executor(
    name: str,
    root: Path,
    data_root: Path,
    *,
    workers: int,
    threads: int,
    devices: int = 1,
    cluster: ClusterConfig | None = None,
    entry_point: str = RUN_STAGE,
    ray: RayConfig | None = None,
) -> Executor:
    """Start the executor of this name (see :class:`StartOptions`).

    Raises :class:`UserError` for an unknown name and for settings that the executor refuses.
    """
    check_name(name)
    options = StartOptions(
        root, data_root, workers, threads, devices, cluster or ClusterConfig(), entry_point, ray or RayConfig()
    )
    return EXECUTORS[name].start(options)
