"""Runs several training stages as one, and leaves in each one's run directory what it would leave alone.

The door is :func:`run_unit`, which an executor calls in place of ``run_stage`` where stages may be fused.
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
from umd_bench.engine.fusion.fused_loop import Ending, Job, standing_together, train_fused
from umd_bench.orchestration.fusion.units import Unit, is_unit
from umd_bench.orchestration.stage_process.entry_point import Outcome, RankLaunch
from umd_bench.orchestration.stage_process.run_stage import (
    conclude,
    environment,
    result_record,
    run_stage,
    stage_result,
    training_facts,
)
from umd_bench.orchestration.stage_process.stdout import OUTPUT_FILE, kept_output
from umd_bench.store.files import write_json
from umd_bench.store.run import Attempt, RunDir, StageBusy


def run_unit(
    root: Path, key: str, data_root: Path, *, stop: Callable[[], bool] = lambda: False, rank_launch: RankLaunch | None = None
) -> dict[str, Outcome]:
    """Run the stages of a unit, on one device, as one, or the stage where ``key`` is one; the outcome of each by key."""
    if not is_unit(key):
        return {key: run_stage(root, key, data_root, stop=stop, rank_launch=rank_launch)}
    unit = Unit(root, key)
    return run_stages(root, unit.keys, data_root, stop=lambda key: stop() or unit.is_asked_to_stop(key))


def run_stages(
    root: Path, keys: Sequence[str], data_root: Path, *, stop: Callable[[str], bool] = lambda key: False
) -> dict[str, Outcome]:
    """:func:`~umd_bench.orchestration.stage_process.run_stage.run_stage` of training stages of one shape, one attempt each,
    as one.

    Those that have a result or an owner are left alone. Those that do not stand where the others do are trained after them, by
    themselves. Should the shared work fail (for want of memory, say), each goes on by itself, and its events say so.
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
        together = standing_together(jobs)
        if len(together) > 1:
            _train(together, data_root, stop, outcomes)
        for spec, attempt in jobs:
            if spec.key not in outcomes:
                work = partial(stage_result, attempt.run, attempt, data_root, partial(stop, spec.key))
                outcomes[spec.key] = _settle(attempt, work)
    return outcomes


def _train(jobs: list[Job], data_root: Path, stop: Callable[[str], bool], outcomes: dict[str, Outcome]) -> None:
    """Train them as one; what becomes of each is put into ``outcomes``, and of none where the shared work fails."""
    torch.set_num_threads(jobs[0][0].resources.threads)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    by_key = {spec.key: (spec, attempt) for spec, attempt in jobs}
    where: dict[str, dict[str, Any]] = {}
    for number, (spec, attempt) in enumerate(jobs, 1):
        where[spec.key] = {**environment(spec), "fused": f"{number} of {len(jobs)}"}
        write_json(attempt.path / "environment.json", where[spec.key])
    try:
        pack = open_data(jobs[0][0].input_data, data_root)

        def ended(key: str, ending: Ending) -> None:
            spec, attempt = by_key[key]
            outcomes[key] = _settle(attempt, partial(_record, spec, attempt, pack, where[key], ending))

        train_fused(jobs, pack, stop=stop, ended=ended)
    except Exception as error:
        said = f"{type(error).__name__}: {error}".partition("\n")[0]
        for spec, attempt in jobs:
            if spec.key not in outcomes:
                message = f"{len(jobs)} stages could not be trained as one ({said}): trained by itself from here on"
                attempt.event("warning", message=message)
    gc.collect()  # the shared memory, before each takes its own
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _record(spec: StageSpec, attempt: Attempt, pack: Pack, where: dict[str, Any], ending: Ending) -> dict[str, Any]:
    """The stage's result; what ended it is raised. Its cost is its share of the group's."""
    if isinstance(ending, Exception):
        raise ending
    facts, cost = training_facts(ending)
    cost = {"seconds": ending.seconds, **cost}
    return result_record(attempt, spec, pack, where, metrics=ending.metrics, facts=facts, cost=cost, exact=ending.exact)


def _settle(attempt: Attempt, work: Callable[[], dict[str, Any]]) -> Outcome:
    """Record how the attempt ended, and give the stage back at once: the others may have long to go."""
    with attempt:
        return conclude(attempt, work)


@contextmanager
def _output_of_all(folders: Sequence[Path]) -> Iterator[None]:
    """What the process prints is in every attempt's output: one file with as many names, since nobody knows whose it is."""
    first, *others = (folder / OUTPUT_FILE for folder in folders)
    try:
        with kept_output(first.parent):
            for other in others:
                os.link(first, other)
            yield
    finally:
        for other in others:
            if other.exists() and other.stat().st_size == 0:
                other.unlink()
