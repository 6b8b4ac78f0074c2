"""From resolved trials to finished stages: check everything, start an executor and run; a person may stop it at any time."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich.console import Console

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.config.launch.ray import RayConfig
from umd_bench.config.sweep.resolve import Trial
from umd_bench.config.trial.data import DataConfig
from umd_bench.machine import usable_cores
from umd_bench.orchestration.executors.contract import Executor
from umd_bench.orchestration.executors.registry import check_settings, start_executor
from umd_bench.orchestration.fusion.option import choose_fusion
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.orchestration.monitor.live import LiveDisplay
from umd_bench.orchestration.preflight import check_trials, check_weights, prepare_data
from umd_bench.orchestration.scheduler import CANCELLED, Observer, Scheduler
from umd_bench.orchestration.stage_process.entry_point import RUN_STAGE
from umd_bench.orchestration.trial_source import SweepProgress
from umd_bench.store import RunDir, StageState
from umd_bench.store.files import require_writable

if TYPE_CHECKING:
    from umd_bench.orchestration.detach import HandedOver


MAX_ACTORS = 256  # on a Ray cluster of any size


@dataclass(frozen=True)
class Site:
    """Where results and data are, and where stages run.

    ``workers`` stages run at a time; None means as many as the cores of this machine (or of the cluster) allow. ``fuse`` (off,
    auto, on) says whether stages of one shape are fused.
    """

    results: Path
    data: Path
    executor: str = "ray"
    workers: int | None = None
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    ray: RayConfig = field(default_factory=RayConfig)
    fuse: str = "off"


def prepare(trials: Sequence[Trial], site: Site) -> dict[str, Node]:
    """Check that every trial can run, create the folders and pack the data; returns the graph of stages. Starts nothing.

    Raises :class:`UserError` for the first mistake. A mistake in the trials or in the command's options is found before
    anything is written.
    """
    check_trials(trials, site.data)
    check_weights(trials, site.results, site.data)
    nodes = build_graph(site.results, trials)
    missing = [node.spec for node in nodes.values() if node.state is not StageState.DONE]
    if missing:
        _check_site(site, max(spec.resources.threads for spec in missing), frozenset(spec.devices for spec in missing))
    require_writable(site.results, "the results folder")
    digests = prepare_data(trials, site.data)
    for node in nodes.values():
        _refuse_other_data(site.results, node, digests)
    return nodes


def execute(
    scheduler: Scheduler,
    site: Site,
    console: Console,
    *,
    on_start: Callable[[], None] = lambda: None,
    observe: Observer = lambda progress: None,
    cancel_file: Path | None = None,
) -> SweepProgress:
    """Run the scheduler's stages on the site's executor and show them; starts no executor if every stage has its result.

    ``on_start`` is called once, after the executor has started and before the first stage does. ``observe`` is called after
    every poll. If the file ``cancel_file`` appears, the sweep stops. The first Ctrl-C (or SIGTERM) lets running stages save
    their state; the second ends the command at once. Raises :class:`UserError` if the executor cannot start.
    """
    missing = scheduler.missing
    if not missing:
        on_start()
        return scheduler.progress
    workers = max_parallel_stages(missing, site)
    if not scheduler.grows:
        workers = min(workers, len(missing))
    fusion = choose_fusion(
        "off" if scheduler.grows else site.fuse,
        missing,
        site.results,
        site.data,
        workers,
        on=site.executor,
        joined=site.ray.address is not None,
        print_line=partial(console.print, highlight=False, soft_wrap=True),
    )
    inner = _start(missing, site, workers, entry_point=fusion.entry_point)
    executor = fusion.wrap(site.results, inner)
    try:
        on_start()
        with LiveDisplay(console, site.results, inner.slots) as display:

            def changed(progress: SweepProgress) -> None:
                display.show(progress)
                observe(progress)
                if cancel_file is not None and cancel_file.exists():
                    scheduler.stop(CANCELLED)

            with _stopping_by_signal(scheduler.stop, console):
                return scheduler.run(executor, observe=changed)
    finally:
        executor.close()


def hand_over_to_slurm(nodes: dict[str, Node], site: Site) -> HandedOver:
    """Submit the stages without a result as jobs that start after their parents' jobs, and return without waiting for them.

    The site's executor must be ``slurm``.

    Raises :class:`UserError` if Slurm refuses the settings or does not answer.
    """
    from umd_bench.orchestration.detach import HandedOver, hand_over
    from umd_bench.orchestration.executors.jobs.executor import SubmititExecutor

    missing = [node for node in nodes.values() if node.state is not StageState.DONE]
    if not missing:
        return HandedOver(0, 0, 0)
    executor = _start(missing, site, min(max_parallel_stages(missing, site), len(missing)))
    assert isinstance(executor, SubmititExecutor)
    return hand_over(nodes, executor)


def max_parallel_stages(stages: Sequence[Node], site: Site) -> int:
    """The largest number of these stages that may run at a time, from the site's options and this machine's cores."""
    if site.executor == "inline":
        return 1
    threads = max(node.spec.resources.threads for node in stages)
    devices = max(node.spec.devices for node in stages)
    here = max(1, usable_cores() // (threads * devices))
    return site.workers or (here if site.ray.address is None else MAX_ACTORS)


@lru_cache
def _check_site(site: Site, threads: int, devices: frozenset[int]) -> None:
    """Check an executor's settings. Cached, since most suggestions of a search have the same settings."""
    check_settings(site.executor, site.cluster, site.ray, threads=threads, devices=devices)


def _start(missing: Sequence[Node], site: Site, workers: int, entry_point: str = RUN_STAGE) -> Executor:
    threads = max(node.spec.resources.threads for node in missing)
    devices = max(node.spec.devices for node in missing)
    on_cpus = site.ray.gpus is None and all(node.spec.resources.device == "cpu" for node in missing)
    return start_executor(
        site.executor,
        site.results,
        site.data,
        workers=workers,
        threads=threads,
        devices=devices,
        cluster=site.cluster,
        entry_point=entry_point,
        ray=site.ray.model_copy(update={"gpus": 0.0}) if on_cpus else site.ray,  # stages on CPUs reserve no GPU
    )


def _refuse_other_data(root: Path, node: Node, digests: dict[DataConfig, str]) -> None:
    """Raise :class:`UserError` if a result was made from other bytes of the data set than this data folder has."""
    result = RunDir(root, node.key).result()
    data = node.spec.input_data
    if result is not None and result["data"]["digest"] != digests[data]:
        theirs, ours = result["data"]["digest"][:12], digests[data][:12]
        raise UserError(
            f"results in {root} were made from another {data.name!r} (digest {theirs}, here {ours}): "
            "give another results folder, or the data folder they were made with"
        )


@contextmanager
def _stopping_by_signal(stop: Callable[[], None], console: Console) -> Iterator[None]:
    def on_signal(number: int, frame: FrameType | None) -> None:
        for name, handler in previous.items():
            signal.signal(name, handler)
        console.print("stopping: running stages save their state (a second signal ends them at once)")
        stop()

    previous = {name: signal.getsignal(name) for name in (signal.SIGINT, signal.SIGTERM)}
    for name in previous:
        signal.signal(name, on_signal)
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
