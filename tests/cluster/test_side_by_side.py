"""Stages of one job that run at a time and share its GPU: one signal reaches all, one death ends one, one requeue."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.lab import Lab, wait_for
from cluster.minislurm import MiniSlurm
from cluster.test_slurm import ask_for, job_of, lives

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import load_cluster
from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.store import StageState, stage_state

SHARED = {"pack": 2, "side_by_side": 2, "gpus": 1}


@pytest.fixture
def lab(slurm: MiniSlurm, tmp_path: Path) -> Iterator[Lab]:
    made = Lab("slurm", tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_two_stages_share_a_gpu_and_one_that_dies_leaves_the_other(lab: Lab, slurm: MiniSlurm) -> None:
    ask_for(lab, **SHARED)
    dies, stays = lab.submit("sleep", "sleep")
    pids = lab.pid(dies), lab.pid(stays)
    assert pids[0] != pids[1]
    assert job_of(lab, dies) == job_of(lab, stays)
    assert slurm.run("squeue", "-h", "-o", "%b").stdout.count("gpu") == 1
    os.kill(pids[0], signal.SIGKILL)
    ended = lab.collect([dies])[dies]
    assert (ended.reason, ended.message) == (EndReason.DIED, "its process was killed by SIGKILL")
    assert stage_state(lab.dir(stays)) is StageState.RUNNING
    lab.go(stays)
    assert lab.collect([stays])[stays].reason is None
    assert lab.dir(stays).attempts() == [1]


@pytest.mark.slow
def test_a_warning_reaches_all_and_they_go_on_after_one_requeue_without_those_that_ended(lab: Lab, slurm: MiniSlurm) -> None:
    ask_for(lab, **{**SHARED, "pack": 3}, time="1m", signal_seconds=55)
    failed, *slept = keys = lab.submit("fail no such thing", "sleep", "sleep")
    ended = lab.collect([failed])
    assert ended[failed].reason is None
    wait_for(
        lambda: lab.executor.poll(0.2) == [] and all(len(lab.dir(key).attempts()) >= 2 for key in slept), "the second life"
    )
    first = [[event["state"] for event in lab.dir(key).events(1) if event["event"] == "state"] for key in slept]
    assert first == [["running", "stopped"]] * 2
    lab.go(*slept)
    assert {item.reason for item in lab.collect(slept).values()} == {None}
    assert set(lives(lab, keys[1])) == {EndReason.TIMEOUT}  # one or more: a warning may come while they begin
    assert lab.dir(failed).attempts() == [1], "what had ended began again with the next life of its job"
    assert len(slurm.jobs()) == 1


@pytest.mark.slow
def test_one_of_them_is_cancelled_alone_and_the_job_with_the_last(lab: Lab, slurm: MiniSlurm) -> None:
    ask_for(lab, **SHARED)
    dropped, kept = lab.submit("sleep", "sleep")
    lab.pid(dropped)
    lab.pid(kept)
    lab.executor.cancel(dropped)
    assert lab.collect([dropped])[dropped].reason is EndReason.CANCELLED
    assert stage_state(lab.dir(kept)) is StageState.RUNNING
    lab.executor.cancel(kept)
    assert lab.collect([kept])[kept].reason is EndReason.CANCELLED
    wait_for(lambda: not set(slurm.jobs().values()) & {"PENDING", "RUNNING"}, "an empty queue")


def test_no_more_run_side_by_side_than_a_job_has(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"side_by_side.*expected at most pack = 1"):
        load_cluster(None, ["side_by_side=2"])
