"""Several stages of one job at a time, on its GPU: a warning reaches all, a death ends one, and one requeue serves all."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from cluster.lab import Lab, states, wait_for
from cluster.minislurm import MiniSlurm

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import load_cluster
from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.store import StageState, stage_state

SHARED = {"pack": 2, "side_by_side": 2, "gpus": 1}


@pytest.mark.slow
def test_two_stages_share_a_gpu_and_one_that_dies_does_not_end_the_other(lab: Lab, slurm: MiniSlurm) -> None:
    lab.request(**SHARED)
    dies, stays = lab.submit("sleep", "sleep")
    pids = lab.pid(dies), lab.pid(stays)
    assert pids[0] != pids[1]
    assert lab.job(dies) == lab.job(stays)
    assert slurm.run("squeue", "-h", "-o", "%b").stdout.count("gpu") == 1
    os.kill(pids[0], signal.SIGKILL)
    ended = lab.collect([dies])[dies]
    assert (ended.reason, ended.message) == (EndReason.DIED, "its process was killed by SIGKILL")
    assert stage_state(lab.dir(stays)) is StageState.RUNNING
    lab.go(stays)
    assert lab.collect([stays])[stays].reason is None
    assert lab.dir(stays).attempts() == [1]


@pytest.mark.slow
def test_after_a_warning_one_requeue_continues_the_stages_that_had_not_ended(lab: Lab, slurm: MiniSlurm) -> None:
    lab.request(**{**SHARED, "pack": 3}, time="1m", signal_seconds=55)
    failed, *slept = keys = lab.submit("fail no such thing", "sleep", "sleep")
    ended = lab.collect([failed])
    assert ended[failed].reason is None
    lab.wait_for_second_attempt(*slept)
    assert [states(lab.dir(key), 1) for key in slept] == [["running", "stopped"]] * 2
    lab.go(*slept)
    assert {item.reason for item in lab.collect(slept).values()} == {None}
    assert set(lab.recorded_ends(keys[1])) == {EndReason.TIMEOUT}  # more than one if a warning comes while they begin
    assert lab.dir(failed).attempts() == [1], "a stage that had ended began again after the requeue"
    assert len(slurm.jobs()) == 1


@pytest.mark.slow
def test_one_stage_is_cancelled_alone_and_the_job_with_its_last_stage(lab: Lab, slurm: MiniSlurm) -> None:
    lab.request(**SHARED)
    first, last = lab.submit("sleep", "sleep")
    lab.pid(first)
    lab.pid(last)
    lab.executor.cancel(first)
    assert lab.collect([first])[first].reason is EndReason.CANCELLED
    assert stage_state(lab.dir(last)) is StageState.RUNNING
    lab.executor.cancel(last)
    assert lab.collect([last])[last].reason is EndReason.CANCELLED
    wait_for(lambda: not slurm.unfinished(), "an empty queue")


def test_side_by_side_is_at_most_pack(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"side_by_side.*expected at most pack = 1"):
        load_cluster(None, ["side_by_side=2"])
