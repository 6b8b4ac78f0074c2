"""Train several stages fused. Each writes into its run directory as if it ran alone.

Executors call :func:`run_unit` in place of ``run_stage`` if stages may be fused.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.open_data import open_data
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.fusion.fused_loop import Ending, Job, at_the_same_point, train_fused
from umd_bench.orchestration.fusion.units import Unit, is_unit
from umd_bench.orchestration.stage_process.entry_point import Outcome, RankLaunch
from umd_bench.orchestration.stage_process.environment import environment
from umd_bench.orchestration.stage_process.record import recorded, result_record, training_result
from umd_bench.orchestration.stage_process.run_stage import run_stage, stage_result
from umd_bench.orchestration.stage_process.stdout import OUTPUT_FILE, captured_output
from umd_bench.store.files import write_json
from umd_bench.store.run import Attempt, RunDir, StageBusy


def run_unit(
    root: Path, key: str, data_root: Path, *, stop: Callable[[], bool] = lambda: False, rank_launch: RankLaunch | None = None
) -> dict[str, Outcome]:
    """Run a unit's stages fused on one device, or a single stage if ``key`` names no unit; returns each stage's outcome."""
    if not is_unit(key):
        return {key: run_stage(root, key, data_root, stop=stop, rank_launch=rank_launch)}
    unit = Unit(root, key)
    return run_stages(root, unit.keys, data_root, stop=lambda key: stop() or unit.stop_requested(key))


def run_stages(
    root: Path, keys: Sequence[str], data_root: Path, *, stop: Callable[[str], bool] = lambda key: False
) -> dict[str, Outcome]:
    """Fuse training stages of one shape, each in an attempt of its own; returns each stage's outcome.

    Stages that have a result or an owner are left alone. The largest group of stages that have seen equally many images is
    fused; the others are trained after it, one by one. If the shared work fails (out of memory, say), each stage continues
    alone, and its events say so.
    """
    outcomes: dict[str, Outcome] = {}
    with ExitStack() as stack:
        jobs: list[Job] = []
        for key in keys:
            run = RunDir(root, key)
            if run.result() is not None and not run.missing_snapshots(run.config().snapshots):
                outcomes[key] = Outcome.DONE
                continue
            try:
                jobs.append((run.config(), stack.enter_context(run.begin())))
            except StageBusy:
                outcomes[key] = Outcome.BUSY
        if jobs:
            stack.enter_context(_output_of_all([attempt.path for _, attempt in jobs]))
        for _, attempt in jobs:
            attempt.event("state", state="running", pid=os.getpid())
        fused = at_the_same_point(jobs)
        if len(fused) > 1:
            _train(fused, data_root, stop, outcomes)
        for spec, attempt in jobs:
            if spec.key not in outcomes:
                with attempt, recorded(attempt) as record:
                    record.result = stage_result(attempt, data_root, partial(stop, spec.key))
                outcomes[spec.key] = record.outcome
    return outcomes


def _train(jobs: list[Job], data_root: Path, stop: Callable[[str], bool], outcomes: dict[str, Outcome]) -> None:
    """Train the jobs fused, and put their outcomes into ``outcomes``. If the shared work fails, unfinished jobs get none."""
    torch.set_num_threads(jobs[0][0].resources.threads)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    by_key = {spec.key: (spec, attempt) for spec, attempt in jobs}
    environments: dict[str, dict[str, Any]] = {}
    for number, (spec, attempt) in enumerate(jobs, 1):
        environments[spec.key] = {**environment(spec), "fused": f"{number} of {len(jobs)}"}
        write_json(attempt.path / "environment.json", environments[spec.key])
    try:
        pack = open_data(jobs[0][0].input_data, data_root)

        def ended(key: str, ending: Ending) -> None:
            spec, attempt = by_key[key]
            with attempt, recorded(attempt) as record:  # releases the stage at once: the others may run for hours
                record.result = _result(spec, attempt, pack, environments[key], ending)
            outcomes[key] = record.outcome

        train_fused(jobs, pack, stop=stop, ended=ended)
    except Exception as error:
        cause = f"{type(error).__name__}: {error}".partition("\n")[0]
        for spec, attempt in jobs:
            if spec.key not in outcomes:
                message = f"{len(jobs)} stages could not be trained as one ({cause}): this one continues alone"
                attempt.event("warning", message=message)
    gc.collect()  # frees the shared memory before each stage takes its own
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _result(spec: StageSpec, attempt: Attempt, pack: Pack, environment: dict[str, Any], ending: Ending) -> dict[str, Any]:
    """The content of the stage's ``result.json``, with its share of the group's seconds. An error in ``ending`` is raised."""
    if isinstance(ending, Exception):
        raise ending
    result = training_result(ending)
    return result_record(attempt, spec, pack, environment, result, seconds=ending.seconds, exact=ending.exact)


@contextmanager
def _output_of_all(folders: Sequence[Path]) -> Iterator[None]:
    """Write the process's output to one file, and link it into every attempt's folder, since no line names its stage."""
    first, *others = (folder / OUTPUT_FILE for folder in folders)
    try:
        with captured_output(first.parent):
            for other in others:
                os.link(first, other)
            yield
    finally:
        for other in others:
            if other.exists() and other.stat().st_size == 0:
                other.unlink()
