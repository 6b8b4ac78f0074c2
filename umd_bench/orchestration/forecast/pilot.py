"""Measures one stage of each shape for a few seconds. A forecast needs this for stages without a similar finished stage.

The command writes one stage of each shape into a request. Another process, or one Slurm job, then runs the real training loop
for some steps, and the real sampler, extractors and network on some images (:mod:`.pilot_main`). All of it happens in a
temporary folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.orchestration.commands import last_line, running_process
from umd_bench.store.files import write_json

REQUEST, MEASUREMENTS, FINISHED = "request.json", "measurements.jsonl", "finished"  # files in the temporary folder
MODULE = "umd_bench.orchestration.forecast.pilot_main"
START_SECONDS = 60.0  # added to the time of the measurement for imports, data and first calls
QUEUE_SECONDS = 300.0  # how long a job may wait for a node


@dataclass(frozen=True)
class PilotMeasurement:
    """An estimate of the cost of the whole stage ``key`` on one device, or the ``error`` that prevented it.

    ``seconds`` has one value per measurement, ``bytes_on_disk`` is the size of the stage's files. ``whole`` says that no part
    of the stage's work was left out, such as the scores of samples or the fits of a probe.
    """

    key: str
    seconds: tuple[float, ...] = ()
    bytes_on_disk: float = 0.0
    whole: bool = False
    error: str = ""


def measure_stages(
    stages: Sequence[tuple[StageSpec, StageSpec | None]],
    results: Path,
    data_root: Path,
    seconds: float,
    *,
    cluster: ClusterConfig | None = None,
) -> dict[str, PilotMeasurement]:
    """Measure these stages (each with its parent) for about ``seconds``; returns the measurements by key.

    The measurements run in a process on this machine, or with ``cluster`` in one Slurm job. A stage is missing if the time was
    too short for it. Raises :class:`UserError` if the process fails or the job cannot be submitted or does not run.
    """
    if cluster is not None:
        results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="measure-", dir=None if cluster is None else results.resolve(), ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        pairs = [
            [None if spec is None else {"key": spec.key, "spec": spec.model_dump(mode="json")} for spec in pair]
            for pair in stages
        ]
        write_json(folder / REQUEST, {"stages": pairs, "data_root": str(data_root.resolve()), "seconds": seconds})
        threads = max(spec.resources.threads for spec, _ in stages)
        if cluster is None:
            _run_here(folder, threads, seconds + START_SECONDS)
        else:
            _run_as_job(folder, results.resolve(), cluster, threads, seconds + START_SECONDS)
        return _read(folder)


def _run_here(folder: Path, threads: int, seconds: float) -> None:
    command = [sys.executable, "-P", "-m", MODULE, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    log = folder / "output"
    with (
        log.open("w") as output,
        running_process(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment) as process,
    ):
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:  # its measurements so far are used
            return
    if code:
        why = last_line(log.read_text(errors="replace"))
        raise UserError(f"--measure: the process that measures ended with exit code {code} ({why})")


def _run_as_job(folder: Path, results: Path, cluster: ClusterConfig, threads: int, seconds: float) -> None:
    from umd_bench.orchestration.executors.frozen_code import code_folder
    from umd_bench.orchestration.executors.jobs.module_job import ModuleJob
    from umd_bench.orchestration.executors.jobs.queues.slurm import SlurmQueue

    SlurmQueue(cluster, threads=threads).check()
    minutes = int(seconds // 60) + 2
    job = ModuleJob(folder, code_folder(results), cluster, module=MODULE, threads=threads, minutes=minutes)
    try:
        with job:
            outcome = job.wait((folder / FINISHED).exists, QUEUE_SECONDS + seconds)
    except UserError as error:
        raise UserError(f"--measure: {error}") from None
    if not (folder / MEASUREMENTS).exists():
        why = "ended without a measurement" if outcome == "ended" else f"had not started after {QUEUE_SECONDS:.0f} s"
        raise UserError(f"--measure: the job that measures {why}; `umd-bench doctor --probe-node` checks a node")


def _read(folder: Path) -> dict[str, PilotMeasurement]:
    """The measurements by key; a stage's later measurement replaces its earlier one."""
    try:
        lines = (folder / MEASUREMENTS).read_text().splitlines()
    except FileNotFoundError:
        return {}
    rows = [json.loads(line) for line in lines if line.endswith("}")]
    return {row["key"]: PilotMeasurement(**{**row, "seconds": tuple(row["seconds"])}) for row in rows}
