"""Which stages are run again after the scheduler ends their job. A scripted queue answers with Slurm's job states."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from cluster import scripted_stage
from orchestration.small import write_small

from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration.executors.contract import MAX_ATTEMPTS, EndReason
from umd_bench.orchestration.executors.jobs import job_end
from umd_bench.orchestration.executors.jobs.executor import SubmititExecutor
from umd_bench.orchestration.executors.jobs.queues.contract import JobStatus
from umd_bench.orchestration.executors.jobs.queues.slurm import OVER
from umd_bench.orchestration.executors.jobs.records import Batch, Claim, JobRecords
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid, SweepProgress
from umd_bench.store import RunDir, StageState, stage_state

BATCH = {
    "name": "umd-behind",
    "executor": "slurm",
    "host": "here",
    "created": 0.0,
    "data_root": "data",
    "stage": scripted_stage.NAME,
    "code": "code",
    "minutes": 60,
    "signal_seconds": 60,
    "threads": 1,
}


class ScriptedQueue:
    """A Slurm in which the ``n``-th job gets the ``n``-th state, on node ``n``; jobs after the last state succeed."""

    name = "slurm"
    status_seconds = 0.0
    capacity: int | None = None

    def __init__(self, root: Path, *states: str) -> None:
        self._root, self._states = root, states
        self.avoided: list[list[str]] = []
        self.cancelled: list[str] = []

    def array_limit(self) -> int:
        return 1

    def submit(self, batch: Batch, folder: Path, python: str, *, after: str | None, avoid: Iterable[str]) -> list[str]:
        number = len(self.avoided)
        self.avoided.append(list(avoid))
        [[key]] = batch.tasks
        attempt = RunDir(self._root, key).begin()
        records = JobRecords(self._root)
        records.note_job_run(batch.name, 0, begun=True)
        if number >= len(self._states):
            attempt.finish({"metrics": {}})
            records.record_end(batch.name, key, None)
        attempt.__exit__(None, None, None)
        return [str(number)]

    def find(self, batch: Batch, folder: Path) -> list[str] | None:
        return None

    def status(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        return {name: self._status(name) for name in ids}

    def _status(self, name: str) -> JobStatus:
        state = "CANCELLED" if name in self.cancelled else self._states[int(name)]
        return JobStatus(state in OVER, state == "RUNNING", OVER.get(state), state, f"node{name}")

    def cancel(self, ids: Sequence[str], *, pending_only: bool = False) -> None:
        if not pending_only:
            self.cancelled += ids


@pytest.fixture
def node(tmp_path: Path) -> Node:
    trials = load_sweep(write_small(tmp_path), sets=["seeds=[0]", "stages=[pretrain]"]).trials[:1]
    [only] = build_graph(tmp_path, trials).values()
    return only


def start(root: Path, queue: ScriptedQueue) -> SubmititExecutor:
    return SubmititExecutor(root, root, queue, ClusterConfig(), threads=1, entry_point=scripted_stage.NAME)


def run(root: Path, node: Node, queue: ScriptedQueue) -> SweepProgress:
    return Scheduler(root, Grid({node.key: node}), poll_seconds=0.01).run(start(root, queue))


def failure(root: Path, node: Node) -> str:
    found = RunDir(root, node.key).failure()
    assert found is not None
    return found.state


def test_a_stage_whose_node_failed_is_submitted_again_without_that_node(tmp_path: Path, node: Node) -> None:
    queue = ScriptedQueue(tmp_path, "NODE_FAIL", "BOOT_FAIL")
    assert run(tmp_path, node, queue).complete
    assert queue.avoided == [[], ["node0"], ["node0", "node1"]]


def test_a_stage_fails_when_lost_nodes_have_used_up_its_attempts(tmp_path: Path, node: Node) -> None:
    queue = ScriptedQueue(tmp_path, *["NODE_FAIL"] * 9)
    assert not run(tmp_path, node, queue).complete
    assert len(queue.avoided) == MAX_ATTEMPTS[EndReason.NODE_FAIL]
    assert failure(tmp_path, node) == "node_fail"


@pytest.mark.parametrize(("slurm_state", "failure_state"), [("OUT_OF_MEMORY", "oom"), ("CANCELLED", "cancelled")])
def test_a_job_that_ran_out_of_memory_or_was_cancelled_is_not_run_again(
    tmp_path: Path, node: Node, slurm_state: str, failure_state: str
) -> None:
    queue = ScriptedQueue(tmp_path, slurm_state, slurm_state)
    assert not run(tmp_path, node, queue).complete
    assert len(queue.avoided) == 1
    assert failure(tmp_path, node) == failure_state
    assert queue.avoided == [[]], "a node was avoided that had not failed"


def test_attempts_are_counted_apart_for_each_reason(tmp_path: Path, node: Node) -> None:
    queue = ScriptedQueue(tmp_path, "FAILED", "FAILED", *["PREEMPTED"] * 4, *["TIMEOUT"] * 4, *["NODE_FAIL"] * 4)
    assert run(tmp_path, node, queue).complete
    assert len(queue.avoided) == 15


def test_a_running_job_without_an_owner_of_its_stage_is_cancelled_and_run_again(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_end, "SILENT_SECONDS", 0.3)
    queue = ScriptedQueue(tmp_path, "RUNNING")
    begun = time.monotonic()
    progress = run(tmp_path, node, queue)
    assert time.monotonic() - begun > 0.3
    assert set(queue.cancelled) == {"0"}
    assert progress.complete, "the executor's own scancel counted as a person's"
    assert len(queue.avoided) == 2


def test_a_running_job_that_owns_its_stage_is_not_cancelled(
    tmp_path: Path, node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_end, "SILENT_SECONDS", 0.1)
    queue = ScriptedQueue(tmp_path, "RUNNING")
    executor = start(tmp_path, queue)
    RunDir(tmp_path, node.key).prepare(node.spec)
    executor.submit(node.key)
    executor.flush()
    with RunDir(tmp_path, node.key).begin():
        assert executor.poll(0.6) == []
        assert queue.cancelled == []
        assert stage_state(RunDir(tmp_path, node.key)) is StageState.RUNNING


@pytest.mark.parametrize(("result", "reason"), [(False, EndReason.ORPHANED), (True, EndReason.CANCELLED)])
def test_a_cancelled_job_is_an_orphan_if_its_parent_has_a_snapshot_but_no_result(
    tmp_path: Path, result: bool, reason: EndReason
) -> None:
    sets = ["seeds=[0]", "axes={}", "stages=[pretrain, probe]", "trial.stages.probe.snapshot=0.5"]
    trial = load_sweep(write_small(tmp_path), sets=sets).trials[0]
    training, probe = (RunDir(tmp_path, trial.specs[name].key) for name in ("pretrain", "probe"))
    for name, run in (("pretrain", training), ("probe", probe)):
        run.prepare(trial.specs[name])
    assert trial.specs["probe"].parent_nimg is not None
    snapshot = training.snapshot(trial.specs["probe"].parent_nimg)
    snapshot.parent.mkdir()
    snapshot.touch()
    with training.begin() as attempt:
        if result:
            attempt.finish({"metrics": {}})
    queue = ScriptedQueue(tmp_path, "CANCELLED")
    executor = start(tmp_path, queue)
    records = JobRecords(tmp_path)
    batch = Batch.model_validate(BATCH | {"tasks": [[probe.key]], "root": str(tmp_path), "after": "7"})
    records.write_batch(batch)
    assert records.claim(Claim(probe.key, 1, batch.name, 0))
    records.confirm(batch.name, ["0"])
    assert executor.adopt([probe.key]) == {probe.key}
    [ended] = executor.poll(1.0)
    assert ended.reason is reason
