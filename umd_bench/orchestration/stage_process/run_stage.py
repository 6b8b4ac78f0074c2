"""Runs one stage: the only door from orchestration to the engine and the evaluation.

:func:`run_stage` owns the run directory while it works, writes what happened into it, and never raises for a stage's own
failure, so that it can be called from any process in any way. Only the loss of another process that the stage needs is raised,
as if this one had been lost too.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import resource
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch

import umd_bench
from umd_bench.config.errors import UserError
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import ImportStage, TrainStage
from umd_bench.data.datasets import data_facts
from umd_bench.data.open_data import open_data
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import device_name, pick_device
from umd_bench.engine.published.layouts import run_import
from umd_bench.engine.training.loop import Stopped, TrainResult, train
from umd_bench.engine.training.parallel import Group, RankLost
from umd_bench.engine.training.state import NonFiniteError
from umd_bench.evaluation.probes.probe_stage import run_probe
from umd_bench.evaluation.samples.generate_stage import run_generate
from umd_bench.orchestration.stage_process.entry_point import Outcome, RankLaunch
from umd_bench.orchestration.stage_process.provenance import commit
from umd_bench.orchestration.stage_process.ranks import RankFailed, together
from umd_bench.orchestration.stage_process.stdout import kept_output
from umd_bench.store.files import write_json
from umd_bench.store.run import Attempt, Failure, RunDir, StageBusy

Ranks = AbstractContextManager[Group | None]


def run_stage(
    root: Path, key: str, data_root: Path, *, stop: Callable[[], bool] = lambda: False, rank_launch: RankLaunch | None = None
) -> Outcome:
    """Run the stage of ``root/stages/<key>`` unless it has a result and every snapshot asked for, or an owner at work.

    ``stop`` is asked between steps; a stage that is stopped has its state saved and goes on from there next time. One on
    several devices meets its other ranks through ``rank_launch``, or starts them here; raises :class:`RankLost` if one is lost.
    """
    run = RunDir(root, key)
    if run.result() is not None and not run.missing_snapshots(run.config().snapshots):
        return Outcome.DONE
    return carry_out(run, lambda attempt: stage_result(run, attempt, data_root, stop, rank_launch))


def carry_out(run: RunDir, work: Callable[[Attempt], dict[str, Any]]) -> Outcome:
    """Own the stage, do the work as a new attempt, and record what came of it: ``work``'s result, or its failure."""
    try:
        attempt = run.begin()
    except StageBusy:
        return Outcome.BUSY
    with attempt, kept_output(attempt.path):
        attempt.event("state", state="running", pid=os.getpid())
        return conclude(attempt, lambda: work(attempt))


def conclude(attempt: Attempt, work: Callable[[], dict[str, Any]]) -> Outcome:
    """Do the work of an attempt that has begun, and record its result or how it ended."""
    try:
        result = work()
    except Stopped:
        attempt.event("state", state="stopped")
        return Outcome.STOPPED
    except RankLost as error:
        attempt.event("state", state="died", message=str(error))
        raise
    except Exception as error:  # whatever a stage does, it fails alone and says so
        attempt.fail(_failure(error))
        return Outcome.FAILED
    else:
        attempt.finish(result)
        return Outcome.DONE


def stage_result(
    run: RunDir, attempt: Attempt, data_root: Path, stop: Callable[[], bool], rank_launch: RankLaunch | None = None
) -> dict[str, Any]:
    """Work of an attempt at a stage of any kind, by itself: its result."""
    spec = run.config() if rank_launch is None else run.config().on_devices(rank_launch.size)
    torch.set_num_threads(spec.resources.threads)
    here = environment(spec)
    write_json(attempt.path / "environment.json", here)
    pack = open_data(spec.input_data, data_root)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    joined = together(spec, attempt, data_root, stop=stop, rank_launch=rank_launch)
    metrics, facts, cost, exact = _work(run, spec, pack, attempt, stop, joined)
    seconds = {"seconds": time.perf_counter() - started, **cost}
    return result_record(attempt, spec, pack, here, metrics=metrics, facts=facts, cost=seconds, exact=exact)


def result_record(
    attempt: Attempt,
    spec: StageSpec,
    pack: Pack,
    environment: dict[str, Any],
    *,
    metrics: dict[str, float],
    facts: dict[str, Any],
    cost: dict[str, float],
    exact: bool,
) -> dict[str, Any]:
    """What ``result.json`` says."""
    return {
        "key": attempt.run.key,
        "kind": spec.kind,
        "metrics": metrics,
        "facts": facts,
        "cost": {**cost, "peak_memory_bytes": _peak_memory()},
        "environment": environment,
        "data": {"name": pack.manifest.name, "digest": pack.manifest.digest},
        "exact": exact,
        "attempts": attempt.number,
    }


def training_facts(trained: TrainResult) -> tuple[dict[str, Any], dict[str, float]]:
    """The facts and the cost that the result of a training stage states."""
    facts = {"nimg": trained.nimg, "flops_per_image": trained.flops_per_image}
    return facts, {"images_per_second": trained.images_per_second}


def _work(
    run: RunDir, spec: StageSpec, pack: Pack, attempt: Attempt, stop: Callable[[], bool], joined: Ranks
) -> tuple[dict[str, float], dict[str, Any], dict[str, float], bool]:
    """The stage's metrics, facts and cost, and whether it is exact (nothing was resumed elsewhere)."""
    match spec.stage:
        case TrainStage():
            with joined as group:
                trained = train(spec, pack, attempt, stop=stop, group=group)
            return trained.metrics, *training_facts(trained), trained.exact
        case ImportStage():
            return {}, run_import(spec, data_facts(spec.data, root=pack.path.parent), attempt), {}, True
        case ProbeStage():
            scored = run_probe(spec, _parent(run, spec), pack, attempt)
        case GenerateStage():
            scored = run_generate(spec, _parent(run, spec), pack, attempt)
    return scored.metrics, dict(scored.facts), scored.cost, True


def _parent(run: RunDir, spec: StageSpec) -> RunDir:
    if spec.parent_key is None:
        raise UserError(f"stage {run.key} names no parent to evaluate")
    return RunDir(run.root, spec.parent_key)


def environment(spec: StageSpec) -> dict[str, Any]:
    """Where and with what the stage runs: everything that may change its last bits, and the host."""
    device = pick_device(spec.resources.device)
    return {
        "umd_bench": umd_bench.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "device": device.type,
        "device_name": device_name(spec.resources.device),
        "threads": spec.resources.threads,
        "world_size": spec.devices,
        "compiled": spec.resources.compile and isinstance(spec.stage, TrainStage | GenerateStage),  # others are run as they are
        "host": platform.node(),
    }


def _failure(error: Exception) -> Failure:
    """Classify an error; the fingerprint leaves out numbers and addresses, which differ between failures of one cause."""
    if isinstance(error, NonFiniteError):
        state = "nan"
    elif isinstance(error, MemoryError | torch.OutOfMemoryError):
        state = "oom"
    elif isinstance(error, UserError):
        state = "user"
    elif isinstance(error, RankFailed):
        state = error.state
    else:
        state = "error"
    message = f"{error}" if isinstance(error, UserError | NonFiniteError) else f"{type(error).__name__}: {error}"
    frames = [f"{frame.filename.rsplit('/', 1)[-1]}:{frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    cause = "|".join([state, type(error).__name__, re.sub(r"0x[0-9a-f]+|[0-9a-f]{16}|\d+", "#", str(error)), *frames[-3:]])
    return Failure(
        state=state,
        message=message,
        fingerprint=hashlib.sha256(cause.encode()).hexdigest()[:12],
        traceback="".join(traceback.format_exception(error)),
    )


def _peak_memory() -> int:
    """Bytes of device memory at the stage's peak, or of this process's resident memory at its own."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
