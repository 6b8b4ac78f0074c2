"""Every executor keeps the promises of ``executors/contract.py``: one suite, also on a real Slurm and on a running Ray cluster.

A new executor gets an entry in ``CANNOT``, with the reason for each case that it cannot meet.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.lab import WORKERS, Lab, states, wait_for
from cluster.miniray import MiniRay

from umd_bench.config.errors import UserError
from umd_bench.config.launch.ray import RayConfig
from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.registry import EXECUTORS, start_executor
from umd_bench.store import StageState, stage_state

pytestmark = pytest.mark.slow
Case = Callable[[Lab, pytest.MonkeyPatch], None]


def stages_that_succeed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = lab.run("succeed", "succeed", "succeed")
    assert [item.reason for item in ended] == [None] * 3
    assert all(lab.dir(item.key).result() for item in ended)
    assert lab.executor.poll(0) == []


def stages_that_fail_and_raise(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    failed, leaked, good = lab.run("fail no such thing", "raise from the depths", "succeed")
    assert failed.reason is None
    failure = lab.dir(failed.key).failure()
    assert failure is not None
    assert failure.message == "no such thing"
    assert leaked.reason is EndReason.DIED
    assert "from the depths" in leaked.message
    assert good.reason is None


def process_that_exits(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    exited, good = lab.run("exit 3", "succeed")
    assert exited.reason is EndReason.DIED
    assert stage_state(lab.dir(exited.key)) is StageState.INTERRUPTED
    assert good.reason is None


def stage_out_of_memory(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    full, good = lab.run("fill-memory", "succeed")
    failure = lab.dir(full.key).failure()
    assert failure is not None
    assert failure.state == "oom"
    assert good.reason is None


def output_of_stages(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The output is in the attempt's folder, up to the last line of a process that exits.

    An inline stage must not exit, since the test runs in the same process.
    """
    printed, exited = lab.run("print some text", "succeed" if lab.name == "inline" else "print-and-exit last line")
    output = (lab.dir(printed.key).attempt_path(1) / "output.log").read_text()
    assert [text in output for text in ("some text", "stderr of some text", "file descriptor 2 of some text")] == [True] * 3
    if lab.name != "inline":
        assert "last line" in (lab.dir(exited.key).attempt_path(1) / "output.log").read_text()


def stage_that_returns_an_unpicklable_value(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [ended] = lab.run("return-a-function")
    assert ended.reason is None
    assert lab.dir(ended.key).result() is not None


def cancel_before_the_stage_begins(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [*others, cancelled] = lab.submit(*["sleep"] * lab.workers, "succeed")
    lab.executor.cancel(cancelled)
    lab.executor.cancel("f" * 16)  # a key that was never submitted is ignored
    lab.go(*others)
    ended = lab.collect([*others, cancelled])
    assert ended.pop(cancelled).reason is EndReason.CANCELLED
    assert [item.reason for item in ended.values()] == [None] * len(others)
    assert lab.dir(cancelled).attempts() == []


def cancel_while_the_stage_runs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [cancelled, other] = lab.submit("sleep", "sleep")
    lab.pid(cancelled)
    lab.pid(other)
    lab.executor.cancel(cancelled)
    assert lab.collect([cancelled])[cancelled].reason is EndReason.CANCELLED
    assert states(lab.dir(cancelled))[-1] == "stopped"
    assert stage_state(lab.dir(other)) is StageState.RUNNING
    lab.go(other)
    assert lab.collect([other])[other].reason is None


def process_that_is_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [killed, other] = lab.submit("sleep", "sleep")
    pid = lab.pid(killed)
    lab.pid(other)
    os.kill(pid, signal.SIGKILL)
    assert lab.collect([killed])[killed].reason is EndReason.DIED
    assert stage_state(lab.dir(killed)) is StageState.INTERRUPTED
    lab.go(killed, other)
    assert lab.collect([other])[other].reason is None
    lab.executor.submit(killed)
    assert lab.collect([killed])[killed].reason is None
    assert lab.dir(killed).attempts() == [1, 2]


def command_that_is_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.close()
    keys = lab.stages("succeed", "sleep", "sleep")
    quick, running, finishing = keys
    command = lab.command(keys)
    wait_for(lambda: lab.dir(quick).result() is not None, "the quick stage's result")
    lab.pid(running)
    if lab.name != "inline":
        lab.pid(finishing)
    command.kill()
    command.wait(timeout=30)
    lab.go(finishing)  # a job that outlives the command finishes before the next command begins
    if lab.name in OUTLIVES:
        wait_for(lambda: lab.dir(finishing).result() is not None, "a result without a command")
    executor = lab.executor
    adopted = executor.adopt(keys)
    assert lab.name not in OUTLIVES or running in adopted
    lab.go(running)
    collected = lab.collect(adopted)
    assert all(item.reason is None for item in collected.values())
    wait_for(lambda: all(stage_state(lab.dir(key)) is not StageState.RUNNING for key in keys), "the end of every stage")
    left = [key for key in keys if lab.dir(key).result() is None]
    assert lab.name not in OUTLIVES or left == []
    for key in left:
        executor.submit(key)
    lab.collect(left)
    assert all(lab.dir(key).result() for key in keys)
    if lab.name in OUTLIVES:
        assert [lab.dir(key).attempts() for key in keys] == [[1]] * 3, "a stage ran twice"


def scheduler_that_fails(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    _poll_with_fake_commands(lab, monkeypatch, "exit 1")


def scheduler_that_lists_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    _poll_with_fake_commands(lab, monkeypatch, "exit 0")


def _poll_with_fake_commands(lab: Lab, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    """For five seconds replace squeue, sacct and scontrol by scripts that run ``answer``; check that no stage ends."""
    [running, queued] = lab.submit("sleep", "sleep")
    lab.pid(running)
    fakes = lab.root / f"fakes-{answer[-1]}"
    fakes.mkdir()
    for name in ("squeue", "sacct", "scontrol"):
        (fakes / name).write_text(f"#!/bin/sh\n{answer}\n")
        (fakes / name).chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{fakes}:{os.environ['PATH']}")
        until = time.monotonic() + 5
        while time.monotonic() < until:
            assert lab.executor.poll(0.2) == [], "a stage ended because the scheduler did not answer"
    lab.go(running, queued)
    assert {item.reason for item in lab.collect([running, queued]).values()} == {None}
    assert lab.dir(running).attempts() == [1]


def two_hundred_stages(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    if lab.name in OUTLIVES:  # several stages per job, in more than one array, since 200 jobs would take minutes
        lab.close()
        lab.cluster = lab.cluster.model_copy(update={"pack": 5 if lab.name == "slurm" else 20})
    ended = lab.run(*["succeed"] * 200)
    assert {item.reason for item in ended} == {None}
    assert all(lab.dir(item.key).attempts() == [1] for item in ended)


def stop(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last case, since an executor starts nothing after a stop."""
    [running] = lab.submit("sleep")
    if lab.name != "inline":
        lab.pid(running)
    lab.executor.stop()
    lab.collect([running])
    assert stage_state(lab.dir(running)) in (StageState.INTERRUPTED, StageState.NEW)
    lab.close()


OUTLIVES = ("submitit-local", "slurm")  # executors whose jobs outlive the command
CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        stages_that_succeed, stages_that_fail_and_raise, process_that_exits, stage_out_of_memory, output_of_stages,
        stage_that_returns_an_unpicklable_value, cancel_before_the_stage_begins, cancel_while_the_stage_runs,
        process_that_is_killed, scheduler_that_fails, scheduler_that_lists_nothing, command_that_is_killed,
        two_hundred_stages, stop,
    )
}  # fmt: skip
# The cases that an executor cannot meet, and why.
CANNOT: dict[str, dict[str, str]] = {
    "inline": {
        "process_that_exits": "a stage runs in the command's own process, which would exit",
        "process_that_is_killed": "a stage runs in the command's own process",
        "cancel_while_the_stage_runs": "poll returns only after the stage; cancelling between its steps is tested elsewhere",
        "scheduler_that_fails": "it has no scheduler",
        "scheduler_that_lists_nothing": "it has no scheduler",
    },
    "ray": {
        "scheduler_that_fails": "its private Ray ends with the command",
        "scheduler_that_lists_nothing": "its private Ray ends with the command",
    },
    "ray-address": {
        "scheduler_that_fails": "test_ray.py tests a head that is lost",
        "scheduler_that_lists_nothing": "test_ray.py tests a head that is lost",
    },
    "submitit-local": {
        "scheduler_that_fails": "its jobs are processes of this machine, which the kernel always lists",
        "scheduler_that_lists_nothing": "its jobs are processes of this machine, which the kernel always lists",
    },
    "slurm": {},
}
COLUMNS = (*EXECUTORS, "ray-address")  # ray-address: Ray on a cluster that runs already
RUNS = [(name, case) for name in COLUMNS for case in CASES if case not in CANNOT[name]]


@pytest.fixture(scope="module")
def labs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Lab]]:
    made: dict[str, Lab] = {name: Lab(name, tmp_path_factory.mktemp(name)) for name in EXECUTORS}
    yield made
    for lab in made.values():
        lab.close()


@pytest.fixture(scope="module")
def on_a_running_ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with MiniRay(cpus=WORKERS) as running:
        lab = Lab("ray", tmp_path_factory.mktemp("ray-address"), ray=RayConfig(address=running.address))
        yield lab
        lab.close()


@pytest.mark.parametrize(("name", "case"), RUNS)
def test_an_executor_keeps_its_promises(
    name: str, case: str, labs: dict[str, Lab], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "slurm":
        request.getfixturevalue("slurm")
    if name == "ray-address":
        labs["ray"].close()  # a process can join only one Ray at a time
        labs.setdefault(name, request.getfixturevalue("on_a_running_ray"))
    elif name == "ray" and "ray-address" in labs:
        labs["ray-address"].close()
    CASES[case](labs[name], monkeypatch)


def test_each_case_that_does_not_run_exists_and_has_a_reason() -> None:
    assert set(CANNOT) == set(COLUMNS)
    assert all(set(reasons) <= set(CASES) and all(reasons.values()) for reasons in CANNOT.values())


def test_the_error_for_an_unknown_executor_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of inline, ray, slurm, submitit-local"):
        start_executor("pbs", tmp_path, tmp_path, workers=1, threads=1)
