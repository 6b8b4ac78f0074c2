"""A sweep on a real Slurm while jobs are requeued, preempted and cancelled and a node goes down: complete, each result once."""

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


def at_work(root: Path, keys: Iterable[str]) -> str:
    """The job of a stage that has begun and not finished."""
    records = JobRecords(root.resolve())
    for claim in records.open_claims(keys):
        run, ids = RunDir(root, claim.key), records.job_ids(claim.batch)
        if run.attempts() and run.result() is None and ids is not None:
            return ids[claim.task]
    return ""


def test_sixty_stages_survive_what_a_cluster_does_to_jobs(slurm: MiniSlurm, tmp_path: Path) -> None:
    trials = load_sweep(write_small(tmp_path), sets=["seeds=[0, 1, 2, 3, 4, 5]"]).trials
    nodes = build_graph(tmp_path, trials)
    assert len(nodes) == 60
    for node in nodes.values():
        scripted_stage.write_script(tmp_path, node.key, "nap 4" if node.name == "pretrain" else "nap 1")
    lab = Lab("slurm", tmp_path)
    first = slurm.names[0]
    faults: list[tuple[int, Callable[[], object]]] = [
        (1, lambda: slurm.run("scontrol", "requeue", at_work(tmp_path, nodes))),
        (3, lambda: slurm.run("sbatch", "-p", "high", "-c", "4", "-w", first, "-o", "/dev/null", "--wrap", "sleep 2")),
        (8, lambda: slurm.run("scancel", at_work(tmp_path, nodes))),
        (14, lambda: slurm.cut_power(first)),
        (30, lambda: slurm.boot(f"slurmd.{first}")),
    ]

    def strike(progress: SweepProgress) -> None:
        if faults and progress.finished >= faults[0][0] and at_work(tmp_path, nodes):  # one at a time, in the midst of work
            faults.pop(0)[1]()

    progress = Scheduler(tmp_path, Grid(nodes)).run(lab.executor, observe=strike)
    lab.close()
    assert not faults, "some faults never happened"
    assert {failure.state for failure in progress.failures.values()} <= {"cancelled"}
    again = Scheduler(tmp_path, Grid(build_graph(tmp_path, trials))).run(lab.executor)  # what a person cancelled
    lab.close()
    assert again.complete
    accepted = [list((tmp_path / "stages" / key).glob("result.json")) for key in nodes]
    assert all(len(found) == 1 for found in accepted)
    owners = [list((tmp_path / "stages" / key).glob("attempt-*/result.json")) for key in nodes]
    assert all(len(found) == 1 for found in owners), "a stage was finished twice"
    assert sum(len(list((tmp_path / "stages" / key).glob("attempt-*"))) for key in nodes) > 60
