"""Where stages run. A new executor is a file beside this one and a row in :data:`EXECUTORS`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from umd_bench.config.errors import UserError, one_of
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.config.launch.ray import RayConfig
from umd_bench.orchestration.executors.contract import MAX_ATTEMPTS, RUN_STAGE, Ended, EndReason, Executor
from umd_bench.orchestration.executors.jobs.queue_contract import Queue


@dataclass(frozen=True)
class Place:
    """What an executor is started with: ``cluster`` for jobs, ``ray`` for Ray, ``stage`` the function that runs one.

    ``devices`` is the most that a stage is spread over.
    """

    root: Path
    data_root: Path
    workers: int
    threads: int
    devices: int = 1
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    stage: str = RUN_STAGE
    ray: RayConfig = field(default_factory=RayConfig)


def _inline(place: Place) -> Executor:
    from umd_bench.orchestration.executors.inline import InlineExecutor

    return InlineExecutor(place.root, place.data_root, stage=place.stage)


def _ray(place: Place) -> Executor:
    from umd_bench.orchestration.executors.ray.actors import RayExecutor

    return RayExecutor(
        place.root,
        place.data_root,
        workers=place.workers * place.devices,  # an actor a device
        threads=place.threads,
        devices=place.devices,
        config=place.ray,
        stage=place.stage,
    )


def _submitit_local(place: Place) -> Executor:
    from umd_bench.orchestration.executors.jobs.local import LocalQueue

    return _jobs(place, LocalQueue(place.workers))


def _slurm(place: Place) -> Executor:
    from umd_bench.orchestration.executors.jobs.slurm import SlurmQueue

    queue = SlurmQueue(place.cluster, threads=place.threads)
    queue.check(place.devices)
    return _jobs(place, queue)


def _jobs(place: Place, queue: Queue) -> Executor:
    from umd_bench.orchestration.executors.jobs.executor import SubmititExecutor

    return SubmititExecutor(
        place.root, place.data_root, queue, place.cluster, threads=place.threads, devices=place.devices, stage=place.stage
    )


EXECUTORS: dict[str, Callable[[Place], Executor]] = {
    "inline": _inline,
    "ray": _ray,
    "submitit-local": _submitit_local,
    "slurm": _slurm,
}


def check_name(name: str) -> None:
    """Raises :class:`UserError` for a name that no executor has."""
    if name not in EXECUTORS:
        raise UserError(f"--on {name!r} is not accepted: {one_of(EXECUTORS)}")


def check_settings(name: str, cluster: ClusterConfig, ray: RayConfig, *, threads: int, devices: Iterable[int]) -> None:
    """Raise :class:`UserError` for what can be told to be refused without starting or writing anything.

    That is what Slurm says of a job on each number of ``devices``, and whether some Ray answers at the address. What only a Ray
    that was started or joined knows (its GPUs, its room, what its nodes see) is left to :func:`start_executor`.
    """
    check_name(name)
    if name == "slurm":
        from umd_bench.orchestration.executors.jobs.slurm import SlurmQueue

        queue = SlurmQueue(cluster, threads=threads)
        for each in sorted({*devices}):
            queue.check(each)
    if name == "ray" and ray.address is not None:
        from umd_bench.orchestration.executors.ray.cluster import reachable

        reachable(ray.address)


def start_executor(
    name: str,
    root: Path,
    data_root: Path,
    *,
    workers: int,
    threads: int,
    devices: int = 1,
    cluster: ClusterConfig | None = None,
    stage: str = RUN_STAGE,
    ray: RayConfig | None = None,
) -> Executor:
    """Start the named executor; an unknown name, or settings that it refuses, raise :class:`UserError`."""
    check_name(name)
    place = Place(root, data_root, workers, threads, devices, cluster or ClusterConfig(), stage, ray or RayConfig())
    return EXECUTORS[name](place)


__all__ = [
    "EXECUTORS",
    "MAX_ATTEMPTS",
    "EndReason",
    "Ended",
    "Executor",
    "Place",
    "check_name",
    "check_settings",
    "start_executor",
]
