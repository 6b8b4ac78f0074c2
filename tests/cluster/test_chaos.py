"""A sweep on a real Slurm ends with each result once, although jobs are requeued, preempted, cancelled and lost with a node."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from cluster import scripted_stage
from cluster.lab import Lab
from cluster.minislurm import MiniSlurm
from orchestration.small import write_small

from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration.executors.jobs.records import JobRecords
from umd_bench.orchestration.graph import build_graph
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid, SweepProgress
from umd_bench.store import RunDir

pytestmark = pytest.mark.slow


def running_job(root: Path, keys: Iterable[str]) -> str:
    """The id of a job whose stage has begun and not finished; empty if there is none."""
    records = JobRecords(root.resolve())
    for claim in records.open_claims(keys):
        run, job = RunDir(root, claim.key), records.job_id(claim)
        if run.attempts() and run.result() is None and job is not None:
            return job
    return ""


def test_sixty_stages_survive_requeues_preemption_cancelling_and_a_lost_node(slurm: MiniSlurm, tmp_path: Path) -> None:
    trials = load_sweep(write_small(tmp_path), sets=["seeds=[0, 1, 2, 3, 4, 5]"]).trials
    nodes = build_graph(tmp_path, trials)
    assert len(nodes) == 60
    for node in nodes.values():
        scripted_stage.write_script(tmp_path, node.key, "nap 4" if node.name == "pretrain" else "nap 1")
    lab = Lab("slurm", tmp_path)
    first = slurm.names[0]
    faults: list[tuple[int, Callable[[], object]]] = [
        (1, lambda: slurm.run("scontrol", "requeue", running_job(tmp_path, nodes))),
        (3, lambda: slurm.run("sbatch", "-p", "high", "-c", "4", "-w", first, "-o", "/dev/null", "--wrap", "sleep 2")),
        (8, lambda: slurm.run("scancel", running_job(tmp_path, nodes))),
        (14, lambda: slurm.cut_power(first)),
        (30, lambda: slurm.boot(f"slurmd.{first}")),
    ]

    def inject_fault(progress: SweepProgress) -> None:
        if faults and progress.finished >= faults[0][0] and running_job(tmp_path, nodes):  # one at a time, while a stage runs
            faults.pop(0)[1]()

    progress = Scheduler(tmp_path, Grid(nodes)).run(lab.executor, observe=inject_fault)
    lab.close()
    assert not faults, "some faults were not injected"
    assert {failure.state for failure in progress.failures.values()} <= {"cancelled"}
    again = Scheduler(tmp_path, Grid(build_graph(tmp_path, trials))).run(lab.executor)  # runs the cancelled stages
    lab.close()
    assert again.complete
    accepted = [list((tmp_path / "stages" / key).glob("result.json")) for key in nodes]
    assert all(len(found) == 1 for found in accepted)
    owners = [list((tmp_path / "stages" / key).glob("attempt-*/result.json")) for key in nodes]
    assert all(len(found) == 1 for found in owners), "a stage was finished twice"
    assert sum(len(list((tmp_path / "stages" / key).glob("attempt-*"))) for key in nodes) > 60
