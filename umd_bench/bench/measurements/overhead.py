"""The cost of scheduling: run a graph of stages that do no work, as a sweep.

Everything but the work is real: run directory, lease, attempt, record of the environment, result, executor, scheduler loop and
display. Some of the stages are also run directly, one after another in this process. A direct stage takes only the time of its
run directory and of the disk. What a stage takes beyond that in the sweep is the cost of the scheduler and the executor.
"""

from __future__ import annotations

import io
import os
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.config.sweep.resolve import load_trial
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.orchestration.executors.registry import start_executor
from umd_bench.orchestration.graph import Node
from umd_bench.orchestration.monitor.live import LiveDisplay
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.stage_process.entry_point import Outcome, RankLaunch
from umd_bench.orchestration.stage_process.environment import environment
from umd_bench.orchestration.stage_process.record import recorded
from umd_bench.orchestration.stage_process.stdout import captured_output
from umd_bench.orchestration.trial_source import Grid
from umd_bench.store import RunDir, StageState
from umd_bench.store.files import write_json

NO_OP = "umd_bench.bench.measurements.overhead:no_op"


@dataclass(frozen=True)
class Overhead:
    """Seconds of one measurement.

    ``start_seconds`` is the time until the executor had started and had run one stage for each worker. ``seconds`` is the time
    of the next ``stages`` stages on ``workers`` workers. ``direct_seconds`` is the median time of a stage without a scheduler.
    """

    executor: str
    stages: int
    workers: int
    start_seconds: float
    seconds: float
    direct_seconds: float
    host: str

    @property
    def seconds_per_stage(self) -> float:
        """How long a stage without work occupies a worker."""
        return self.seconds * self.workers / self.stages

    def as_json(self) -> dict[str, Any]:
        """All numbers as plain values."""
        return {**asdict(self), "seconds_per_stage": self.seconds_per_stage}


def measure_overhead(
    *,
    stages: int = 500,
    executor: str = "ray",
    workers: int = 2,
    cluster: ClusterConfig | None = None,
    folder: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Overhead:
    """Run ``stages`` stages without work on started workers, in a temporary folder below ``folder`` (default: the system's).

    Raises :class:`UserError` for an executor that is unknown or does not start, and if a stage has no result.
    """
    if stages < workers:
        raise UserError(f"--stages {stages} is not accepted: expected at least one for each of {workers} workers")
    specs = _specs(stages + workers)
    with tempfile.TemporaryDirectory(prefix="umd-bench-overhead-", dir=folder) as name:
        root = Path(name)
        progress("running stages directly")
        direct = _direct(root / "direct", specs[: min(stages, 50)])
        progress(f"starting {executor}")
        started = time.perf_counter()
        running = start_executor(executor, root, root, workers=workers, threads=1, cluster=cluster, entry_point=NO_OP)
        try:
            warm, rest = _nodes(specs[:workers]), _nodes(specs[workers:])
            for nodes in (warm, rest):
                begun = time.perf_counter()
                with LiveDisplay(Console(file=io.StringIO()), root, running.slots) as display:
                    ended = Scheduler(root, Grid(nodes)).run(running, observe=display.show)
                if not ended.complete:
                    raise UserError(f"only {ended.finished} of {len(nodes)} stages without work have a result on {executor}")
                seconds = time.perf_counter() - begun
                progress(f"{len(nodes)} stages on {executor}: {seconds:.1f} s")
        finally:
            running.close()
    return Overhead(executor, stages, workers, begun - started, seconds, direct, platform.node())


def no_op(
    root: Path, key: str, data_root: Path, *, stop: Callable[[], bool] = lambda: False, rank_launch: RankLaunch | None = None
) -> Outcome:
    """A stage without work.

    It does everything that :func:`umd_bench.orchestration.stage_process.run_stage.run_stage` does, except the work.
    """
    run = RunDir(root, key)
    if run.result() is not None:
        return Outcome.DONE
    with run.begin() as attempt, captured_output(attempt.path):
        attempt.event("state", state="running", pid=os.getpid())
        with recorded(attempt) as record:
            here = environment(run.config())
            write_json(attempt.path / "environment.json", here)
            empty = {"metrics": {}, "cost": {"seconds": 0.0}, "data": {"digest": ""}}
            record.result = {"key": key, "environment": here, **empty}
    return record.outcome


def _specs(count: int) -> list[StageSpec]:
    """Specs of ``count`` stages that differ only in their seed."""
    trial = load_trial("umd", tier="digits")
    spec = trial.specs["pretrain"]
    return [StageSpec.model_validate({**spec.model_dump(), "seed": seed}) for seed in range(count)]


def _nodes(specs: list[StageSpec]) -> dict[str, Node]:
    return {spec.key: Node(spec, "no-op", StageState.NEW, [f"seed{spec.seed}"]) for spec in specs}


def _direct(root: Path, specs: list[StageSpec]) -> float:
    """The median seconds of one stage without a scheduler."""
    seconds = []
    for spec in specs:
        begun = time.perf_counter()
        RunDir(root, spec.key).prepare(spec)
        no_op(root, spec.key, root)
        seconds.append(time.perf_counter() - begun)
    return sorted(seconds)[len(seconds) // 2]
