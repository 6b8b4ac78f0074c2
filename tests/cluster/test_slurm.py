"""What happens to jobs on a real Slurm, and that every stage ends with one result all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import scripted_stage
from cluster.lab import Lab, wait_for
from cluster.minislurm import MiniSlurm
from orchestration.small import write_small

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration.detach import cancel_jobs, hand_over
from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.jobs import submission
from umd_bench.orchestration.executors.jobs.executor import SubmititExecutor
from umd_bench.orchestration.executors.jobs.queue_contract import Queue
from umd_bench.orchestration.executors.jobs.records import JobRecords
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.store import StageState, stage_state

pytestmark = pytest.mark.slow


@pytest.fixture
def lab(slurm: MiniSlurm, tmp_path: Path) -> Iterator[Lab]:
    made = Lab("slurm", tmp_path)
    yield made
    made.close()


def ask_for(lab: Lab, **fields: object) -> None:
    """From now on jobs ask for this."""
    lab.close()
    lab.cluster = ClusterConfig.model_validate({"time": "5m", "signal_seconds": 5, **fields})


def lives(lab: Lab, key: str) -> list[str | None]:
    """How each life of the stage's job ended, in its own words."""
    records = JobRecords(lab.root.resolve())
    claim = records.newest_claim(key)
    assert claim is not None
    return [life["end"] for life in records.job_runs(claim.batch, claim.task) if "end" in life]


def job_of(lab: Lab, key: str) -> str:
    records = JobRecords(lab.root.resolve())
    claim = records.newest_claim(key)
    assert claim is not None
    ids = records.job_ids(claim.batch)
    assert ids is not None
    return ids[claim.task]


def queue_of(lab: Lab) -> Queue:
    assert isinstance(lab.executor, SubmititExecutor)
    return lab.executor._queue


def test_a_time_limit_is_a_pause(lab: Lab, slurm: MiniSlurm) -> None:
    ask_for(lab, time="1m", signal_seconds=55)
    [key] = lab.submit("sleep")
    lab.pid(key)
    wait_for(lambda: lab.executor.poll(0.2) == [] and len(lab.dir(key).attempts()) == 2, "the second life")
    lab.go(key)
    assert lab.collect([key])[key].reason is None
    assert lives(lab, key) == [EndReason.TIMEOUT]
    assert len(slurm.jobs()) == 1


def test_a_preempted_stage_saves_its_state_and_goes_on(lab: Lab, slurm: MiniSlurm) -> None:
    ask_for(lab, cpus=4, nodelist=slurm.names[0], time="60m")
    [key] = lab.submit("sleep")
    lab.pid(key)
    urgent = slurm.run("sbatch", "-p", "high", "-c", "4", "-w", slurm.names[0], "-o", "/dev/null", "--wrap", "sleep 3")
    assert urgent.returncode == 0, urgent.stderr
    wait_for(lambda: lab.executor.poll(0.2) == [] and len(lab.dir(key).attempts()) == 2, "the second life")
    assert [event["state"] for event in lab.dir(key).events(1) if event["event"] == "state"] == ["running", "stopped"]
    lab.go(key)
    assert lab.collect([key])[key].reason is None


def test_a_requeue_from_outside_ends_with_one_result(lab: Lab, slurm: MiniSlurm) -> None:
    [key] = lab.submit("sleep")
    lab.pid(key)
    assert slurm.run("scontrol", "requeue", job_of(lab, key)).returncode == 0
    wait_for(lambda: lab.executor.poll(0.2) == [] and len(lab.dir(key).attempts()) == 2, "the second life")
    lab.go(key)
    assert lab.collect([key])[key].reason is None


def test_a_job_that_somebody_cancels_is_cancelled(lab: Lab, slurm: MiniSlurm) -> None:
    [key] = lab.submit("sleep")
    lab.pid(key)
    slurm.run("scancel", job_of(lab, key))
    assert lab.collect([key])[key].reason is EndReason.CANCELLED
    assert stage_state(lab.dir(key)) is StageState.INTERRUPTED


def test_a_stage_outlives_its_node(lab: Lab, slurm: MiniSlurm) -> None:
    [key] = lab.submit("sleep")
    lab.pid(key)
    node = slurm.run("squeue", "-h", "-o", "%N").stdout.strip()
    slurm.cut_power(node)
    wait_for(lambda: lab.executor.poll(0.2) == [] and len(lab.dir(key).attempts()) == 2, "a life on the other node")
    assert slurm.run("squeue", "-h", "-t", "running", "-o", "%N").stdout.strip() != node
    lab.go(key)
    assert lab.collect([key])[key].reason is None


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_submitting_side_killed_around_sbatch_submits_once(
    lab: Lab, slurm: MiniSlurm, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = queue_of(lab)
    submit = queue.submit

    def killed(*arguments: object, **options: object) -> list[str]:
        if when == "after":
            submit(*arguments, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "submit", killed)
    keys = lab.submit("sleep", "sleep")
    with pytest.raises(KeyboardInterrupt):
        lab.executor.poll(0)
    lab._executor = None  # a kill closes nothing
    monkeypatch.setattr(submission, "SUBMITTING_SECONDS", 2.0)
    assert lab.executor.adopt(keys) == set(keys)
    lab.go(*keys)
    assert {item.reason for item in lab.collect(keys).values()} == {None}
    assert len(slurm.jobs()) == len(keys)
    assert [lab.dir(key).attempts() for key in keys] == [[1], [1]]


def test_a_controller_that_is_down_delays_a_submission(lab: Lab, slurm: MiniSlurm, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "RETRY_SECONDS", 2.0)
    queue_of(lab)
    slurm.kill_daemon("slurmctld")
    [key] = lab.submit("succeed")
    assert lab.executor.poll(0) == []
    slurm.boot("slurmctld")
    assert lab.collect([key])[key].reason is None
    assert len(slurm.jobs()) == 1


def test_arrays_are_split_at_the_largest_that_slurm_takes(lab: Lab) -> None:
    lab.run(*["succeed"] * 36)
    records = JobRecords(lab.root.resolve())  # what sbatch answered: squeue need not list every task that is over
    ids = [records.job_ids(record.parent.name) or [] for record in records.path.glob("*/batch.json")]
    assert sorted(map(len, ids)) == [3, 33]
    assert all(len({name.partition("_")[0] for name in of_one}) == 1 for of_one in ids)


def test_a_job_runs_the_code_that_was_there_when_it_was_submitted(lab: Lab) -> None:
    [ended] = lab.run("say-where")
    result = lab.dir(ended.key).result()
    assert result is not None
    assert Path(result["file"]).is_relative_to(lab.root.resolve() / "jobs" / "code")


def test_settings_that_slurm_refuses_are_a_sentence_and_no_job(lab: Lab, slurm: MiniSlurm) -> None:
    ask_for(lab, partition="nowhere")
    with pytest.raises(UserError, match=r"Slurm refuses jobs with these settings: .*partition"):
        lab.submit("succeed")
    ask_for(lab, gpus=5)
    with pytest.raises(UserError, match="Slurm refuses jobs with these settings"):
        lab.submit("succeed")
    assert slurm.jobs() == {}


def graph(lab: Lab, scripts: dict[str, str]) -> dict[str, Node]:
    """Stages of one trial, by name; what has no script succeeds."""
    trial = load_sweep(write_small(lab.root), sets=["seeds=[0]", "axes={}"]).trials[0]
    for name, spec in trial.specs.items():
        scripted_stage.write_script(lab.root, spec.key, scripts.get(name, "succeed"))
    return {node.name: node for node in build_graph(lab.root, [trial]).values()}


def leave(lab: Lab, nodes: dict[str, Node]) -> None:
    assert isinstance(lab.executor, SubmititExecutor)
    handed = hand_over({node.key: node for node in nodes.values()}, lab.executor)
    assert handed.submitted == len(nodes)
    lab.close()


def test_a_detached_sweep_runs_to_its_end_with_nobody_watching(lab: Lab, slurm: MiniSlurm) -> None:
    nodes = graph(lab, {"pretrain": "sleep"})
    leave(lab, nodes)
    lab.pid(nodes["pretrain"].key)
    waiting = {node.key for node in nodes.values()}
    assert lab.executor.adopt(waiting) == waiting
    lab.executor.detach()
    lab.close()
    lab.go(nodes["pretrain"].key)
    wait_for(lambda: all(lab.dir(key).result() for key in waiting), "every result")
    ran = {name: next(iter(lab.dir(node.key).events(1)))["time"] for name, node in nodes.items()}
    assert ran["pretrain"] < min(ran["probe"], ran["finetune"])
    assert ran["finetune"] < min(ran["finetune_probe"], ran["generate"])
    assert lab.executor.adopt(waiting) == set()


def test_behind_a_parent_without_a_result_nothing_begins_and_all_is_said(lab: Lab) -> None:
    nodes = graph(lab, {"finetune": "fail no such thing"})
    leave(lab, nodes)
    keys = {name: node.key for name, node in nodes.items()}
    wait_for(lambda: lab.dir(keys["finetune"]).failure() is not None, "the failure")
    ended = lab.collect(lab.executor.adopt(keys.values()))
    for name in ("finetune_probe", "generate"):
        assert ended[keys[name]].reason is EndReason.ORPHANED
        assert lab.dir(keys[name]).attempts() == []
    wait_for(lambda: lab.dir(keys["probe"]).result() is not None, "the probe, which has its parent")


def test_cancelling_a_detached_sweep_leaves_no_job(lab: Lab, slurm: MiniSlurm) -> None:
    nodes = graph(lab, {"pretrain": "sleep"})
    leave(lab, nodes)
    lab.pid(nodes["pretrain"].key)
    keys = [node.key for node in nodes.values()]
    assert cancel_jobs(lab.root, keys) == (5, 0)
    assert stage_state(lab.dir(nodes["pretrain"].key)) is StageState.INTERRUPTED
    assert lab.executor.adopt(keys) == set()
    wait_for(lambda: not set(slurm.jobs().values()) & {"PENDING", "RUNNING"}, "an empty queue")
