"""Time limits, preemption, lost nodes, killed commands on a real Slurm: a stage has one result, or says why it has none."""

from __future__ import annotations

from pathlib import Path

import pytest
from cluster import scripted_stage
from cluster.lab import Lab, states, wait_for
from cluster.minislurm import MiniSlurm
from orchestration.small import write_small

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration.detach import cancel_jobs, hand_over
from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.jobs import submission
from umd_bench.orchestration.executors.jobs.executor import SubmititExecutor
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.store import StageState, stage_state

pytestmark = pytest.mark.slow


def test_a_stage_continues_after_its_jobs_time_limit(lab: Lab, slurm: MiniSlurm) -> None:
    lab.request(time="1m", signal_seconds=55)
    [key] = lab.submit("sleep")
    lab.pid(key)
    lab.wait_for_second_attempt(key)
    lab.go(key)
    assert lab.collect([key])[key].reason is None
    assert lab.recorded_ends(key) == [EndReason.TIMEOUT]
    assert len(slurm.jobs()) == 1


def test_a_preempted_stage_saves_its_state_and_continues(lab: Lab, slurm: MiniSlurm) -> None:
    lab.request(cpus=4, nodelist=slurm.names[0], time="60m")
    [key] = lab.submit("sleep")
    lab.pid(key)
    urgent = slurm.run("sbatch", "-p", "high", "-c", "4", "-w", slurm.names[0], "-o", "/dev/null", "--wrap", "sleep 3")
    assert urgent.returncode == 0, urgent.stderr
    lab.wait_for_second_attempt(key)
    assert states(lab.dir(key), 1) == ["running", "stopped"]
    lab.go(key)
    assert lab.collect([key])[key].reason is None


def test_a_job_that_somebody_requeues_ends_with_one_result(lab: Lab, slurm: MiniSlurm) -> None:
    [key] = lab.submit("sleep")
    lab.pid(key)
    assert slurm.run("scontrol", "requeue", lab.job(key)).returncode == 0
    lab.wait_for_second_attempt(key)
    lab.go(key)
    assert lab.collect([key])[key].reason is None


def test_a_stage_whose_job_somebody_cancels_is_cancelled(lab: Lab, slurm: MiniSlurm) -> None:
    [key] = lab.submit("sleep")
    lab.pid(key)
    slurm.run("scancel", lab.job(key))
    assert lab.collect([key])[key].reason is EndReason.CANCELLED
    assert stage_state(lab.dir(key)) is StageState.INTERRUPTED


def test_a_stage_continues_elsewhere_after_its_node_is_lost(lab: Lab, slurm: MiniSlurm) -> None:
    [key] = lab.submit("sleep")
    lab.pid(key)
    node = slurm.run("squeue", "-h", "-o", "%N").stdout.strip()
    slurm.cut_power(node)
    lab.wait_for_second_attempt(key)
    assert slurm.run("squeue", "-h", "-t", "running", "-o", "%N").stdout.strip() != node
    lab.go(key)
    assert lab.collect([key])[key].reason is None


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_command_killed_before_or_after_sbatch_submits_once(
    lab: Lab, slurm: MiniSlurm, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = lab.queue()
    submit = queue.submit

    def submit_and_die(*arguments: object, **options: object) -> list[str]:
        if when == "after":
            submit(*arguments, **options)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(queue, "submit", submit_and_die)
    keys = lab.submit("sleep", "sleep")
    with pytest.raises(KeyboardInterrupt):
        lab.executor.poll(0)
    lab.abandon()
    monkeypatch.setattr(submission, "SUBMITTING_SECONDS", 2.0)
    assert lab.executor.adopt(keys) == set(keys)
    lab.go(*keys)
    assert {item.reason for item in lab.collect(keys).values()} == {None}
    assert len(slurm.jobs()) == len(keys)
    assert [lab.dir(key).attempts() for key in keys] == [[1], [1]]


def test_a_controller_that_is_down_only_delays_a_submission(
    lab: Lab, slurm: MiniSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "RETRY_SECONDS", 2.0)
    lab.queue()  # starts the executor, while the controller still answers
    slurm.kill_daemon("slurmctld")
    [key] = lab.submit("succeed")
    assert lab.executor.poll(0) == []
    slurm.boot("slurmctld")
    assert lab.collect([key])[key].reason is None
    assert len(slurm.jobs()) == 1


def test_arrays_are_split_at_the_largest_size_that_slurm_accepts(lab: Lab) -> None:
    lab.run(*["succeed"] * 36)
    # The recorded ids come from sbatch, since squeue may leave out finished tasks.
    ids = [lab.records.job_ids(path.parent.name) or [] for path in lab.records.path.glob("*/batch.json")]
    assert sorted(map(len, ids)) == [3, 33]
    assert all(len({name.partition("_")[0] for name in array}) == 1 for array in ids)


def test_a_job_runs_the_code_from_the_time_of_its_submission(lab: Lab) -> None:
    [ended] = lab.run("say-where")
    result = lab.dir(ended.key).result()
    assert result is not None
    assert Path(result["file"]).is_relative_to(lab.root.resolve() / "jobs" / "code")


def test_settings_that_slurm_refuses_give_one_error_and_no_job(lab: Lab, slurm: MiniSlurm) -> None:
    lab.request(partition="nowhere")
    with pytest.raises(UserError, match=r"Slurm refuses jobs with these settings: .*partition"):
        lab.submit("succeed")
    lab.request(gpus=5)
    with pytest.raises(UserError, match="Slurm refuses jobs with these settings"):
        lab.submit("succeed")
    assert slurm.jobs() == {}


def nodes_of_one_trial(lab: Lab, scripts: dict[str, str]) -> dict[str, Node]:
    """The stages of one trial, by name. A stage without a script succeeds."""
    trial = load_sweep(write_small(lab.root), sets=["seeds=[0]", "axes={}"]).trials[0]
    for name, spec in trial.specs.items():
        scripted_stage.write_script(lab.root, spec.key, scripts.get(name, "succeed"))
    return {node.name: node for node in build_graph(lab.root, [trial]).values()}


def detach(lab: Lab, nodes: dict[str, Node]) -> None:
    """Submit all stages and close the executor, as ``sweep --detach`` does."""
    assert isinstance(lab.executor, SubmititExecutor)
    handed_over = hand_over({node.key: node for node in nodes.values()}, lab.executor)
    assert handed_over.submitted == len(nodes)
    lab.close()


def test_a_detached_sweep_runs_to_its_end_without_a_command(lab: Lab, slurm: MiniSlurm) -> None:
    nodes = nodes_of_one_trial(lab, {"pretrain": "sleep"})
    detach(lab, nodes)
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


def test_children_of_a_failed_stage_do_not_begin_and_are_orphaned(lab: Lab) -> None:
    nodes = nodes_of_one_trial(lab, {"finetune": "fail no such thing"})
    detach(lab, nodes)
    keys = {name: node.key for name, node in nodes.items()}
    wait_for(lambda: lab.dir(keys["finetune"]).failure() is not None, "the failure")
    ended = lab.collect(lab.executor.adopt(keys.values()))
    for name in ("finetune_probe", "generate"):
        assert ended[keys[name]].reason is EndReason.ORPHANED
        assert lab.dir(keys[name]).attempts() == []
    wait_for(lambda: lab.dir(keys["probe"]).result() is not None, "the result of the probe, whose parent has one")


def test_cancelling_a_detached_sweep_leaves_no_job(lab: Lab, slurm: MiniSlurm) -> None:
    nodes = nodes_of_one_trial(lab, {"pretrain": "sleep"})
    detach(lab, nodes)
    lab.pid(nodes["pretrain"].key)
    keys = [node.key for node in nodes.values()]
    assert cancel_jobs(lab.root, keys) == (5, 0)
    assert stage_state(lab.dir(nodes["pretrain"].key)) is StageState.INTERRUPTED
    assert lab.executor.adopt(keys) == set()
    wait_for(lambda: not slurm.unfinished(), "an empty queue")
