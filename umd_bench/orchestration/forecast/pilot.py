"""A few seconds of each shape of stage, measured where the stages would run, for a forecast without a past.

The command writes down one stage of each shape, and a process of its own (or a job) runs the real loop for some steps, and the
real sampler, extractors and network on some images, in a folder that is thrown away (short_runs.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.store.files import write_json

ASKED, FOUND, ENDED = "asked.json", "found.jsonl", "ended"
MODULE = "umd_bench.orchestration.forecast.pilot_main"
START_SECONDS = 60.0  # beyond the time that is allowed: imports, data, the first call of everything
QUEUE_SECONDS = 300.0  # for which a job may wait for a node


@dataclass(frozen=True)
class Measured:
    """What a whole stage like ``key`` would take, by each measurement, on one device; ``whole``: nothing was left out.

    ``bytes_on_disk`` is what it would leave. ``error`` says why there is nothing.
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
) -> dict[str, Measured]:
    """By key, what was found out about these stages (each with its parent) within about ``seconds`` of work.

    In a process of this machine, or with ``cluster`` in one job of Slurm. What was not reached is left out.
    Raises :class:`UserError` where the process or the job cannot be started.
    """
    if cluster is not None:
        results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="measure-", dir=None if cluster is None else results.resolve(), ignore_cleanup_errors=True
    ) as name:
        folder = Path(name)
        asked = [
            [None if spec is None else {"key": spec.key, "spec": spec.model_dump(mode="json")} for spec in pair]
            for pair in stages
        ]
        write_json(folder / ASKED, {"stages": asked, "data_root": str(data_root.resolve()), "seconds": seconds})
        threads = max(spec.resources.threads for spec, _ in stages)
        if cluster is None:
            _run_here(folder, threads, seconds + START_SECONDS)
        else:
            _run_there(folder, results.resolve() / "jobs" / "code", cluster, threads, seconds + START_SECONDS)
        return _found(folder)


def _run_here(folder: Path, threads: int, seconds: float) -> None:
    command = [sys.executable, "-P", "-m", MODULE, str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    with (folder / "output").open("w") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        try:
            code = process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return
        finally:
            process.kill()
            process.wait()
    if code:
        last = "".join((folder / "output").read_text(errors="replace").strip().splitlines()[-1:])
        raise UserError(f"--measure: the process that measures ended with exit code {code} ({last})")


def _run_there(folder: Path, code: Path, cluster: ClusterConfig, threads: int, seconds: float) -> None:
    from umd_bench.orchestration.commands import run_command
    from umd_bench.orchestration.doctor.finding import Finding
    from umd_bench.orchestration.doctor.node_probe import ANSWER_SECONDS, OVER_LOOKS, submit_script
    from umd_bench.orchestration.executors.jobs.slurm import SlurmQueue

    queue = SlurmQueue(cluster, threads=threads)
    queue.check()
    minutes = min(cluster.time, int(seconds // 60) + 2)
    job = submit_script(folder, code, cluster, module=MODULE, threads=threads, minutes=minutes)
    if isinstance(job, Finding):
        raise UserError(f"--measure: {job.what}")
    until, over = time.monotonic() + QUEUE_SECONDS + seconds, 0
    try:
        while time.monotonic() < until and over < OVER_LOOKS and not (folder / ENDED).exists():
            status = queue.status([job]).get(job)
            over += status is not None and status.over
            time.sleep(0.5)
    finally:
        run_command("scancel", job, seconds=ANSWER_SECONDS)
    if not (folder / FOUND).exists():
        why = "ended without a word" if over >= OVER_LOOKS else f"had not begun within {QUEUE_SECONDS:.0f} s"
        raise UserError(f"--measure: the job that measures {why}; `umd-bench doctor --probe-node` says what a node is like")


def _found(folder: Path) -> dict[str, Measured]:
    """The last word on each stage."""
    try:
        lines = (folder / FOUND).read_text().splitlines()
    except FileNotFoundError:
        return {}
    facts = [json.loads(line) for line in lines if line.endswith("}")]
    return {fact["key"]: Measured(**{**fact, "seconds": tuple(fact["seconds"])}) for fact in facts}
