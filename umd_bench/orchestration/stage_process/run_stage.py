"""Run one stage of any kind: the engine trains or imports, the evaluation probes, or draws samples and scores them.

:func:`run_stage` owns the run directory while it works, and records there how the stage ends. It does not raise when the stage
fails, so that any process can call it. It raises only if it loses another process that the stage needs.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from umd_bench.config.errors import UserError
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import ImportStage, TrainStage
from umd_bench.data.datasets import data_facts
from umd_bench.data.open_data import open_data
from umd_bench.engine.import_stage import run_import
from umd_bench.engine.training.loop import train
from umd_bench.evaluation.probes.probe_stage import run_probe
from umd_bench.evaluation.samples.generate_stage import run_generate
from umd_bench.evaluation.stage_result import StageResult
from umd_bench.orchestration.stage_process.entry_point import Outcome, RankLaunch
from umd_bench.orchestration.stage_process.environment import environment
from umd_bench.orchestration.stage_process.ranks import train_on_ranks
from umd_bench.orchestration.stage_process.record import recorded, result_record, training_result
from umd_bench.orchestration.stage_process.stdout import captured_output
from umd_bench.store.files import write_json
from umd_bench.store.run import Attempt, RunDir, StageBusy


def run_stage(
    root: Path, key: str, data_root: Path, *, stop: Callable[[], bool] = lambda: False, rank_launch: RankLaunch | None = None
) -> Outcome:
    """Run the stage in ``root/stages/<key>``, unless it is complete or another process owns it.

    It is complete if it has a result and all requested snapshots.

    ``stop`` is called between steps. A stage that stops has saved its state and continues from there when it is run again. A
    stage on several devices meets its other ranks through ``rank_launch``, or starts them on this machine.

    Raises :class:`~umd_bench.engine.training.parallel.RankLost` if one of the other ranks is lost.
    """
    run = RunDir(root, key)
    if run.result() is not None and not run.missing_snapshots(run.config().snapshots):
        return Outcome.DONE
    try:
        attempt = run.begin()
    except StageBusy:
        return Outcome.BUSY
    with attempt, captured_output(attempt.path):
        attempt.event("state", state="running", pid=os.getpid())
        with recorded(attempt) as record:
            record.result = stage_result(attempt, data_root, stop, rank_launch)
    return record.outcome


def stage_result(
    attempt: Attempt, data_root: Path, stop: Callable[[], bool], rank_launch: RankLaunch | None = None
) -> dict[str, Any]:
    """Do the work of one attempt at a stage of any kind; returns the content of ``result.json``."""
    run = attempt.run
    spec = run.config() if rank_launch is None else run.config().on_devices(rank_launch.size)
    torch.set_num_threads(spec.resources.threads)
    here = environment(spec)
    write_json(attempt.path / "environment.json", here)
    pack = open_data(spec.input_data, data_root)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    started, exact = time.perf_counter(), True
    match spec.stage:
        case TrainStage() if spec.devices == 1:
            trained = train(spec, pack, attempt, stop=stop)
            result, exact = training_result(trained), trained.exact
        case TrainStage():
            trained = train_on_ranks(spec, pack, attempt, data_root, stop=stop, rank_launch=rank_launch)
            result, exact = training_result(trained), trained.exact
        case ImportStage():
            result = StageResult({}, run_import(spec, data_facts(spec.data, root=pack.path.parent), attempt))
        case ProbeStage():
            result = run_probe(spec, _parent(run, spec), pack, attempt)
        case GenerateStage():
            result = run_generate(spec, _parent(run, spec), pack, attempt)
    return result_record(attempt, spec, pack, here, result, seconds=time.perf_counter() - started, exact=exact)


def _parent(run: RunDir, spec: StageSpec) -> RunDir:
    if spec.parent_key is None:
        raise UserError(f"stage {run.key} names no parent to evaluate")
    return RunDir(run.root, spec.parent_key)
