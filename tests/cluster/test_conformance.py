"""One suite over every executor: the promises of ``executors/contract.py``, on a real Slurm and a Ray that runs already too."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cluster.lab import WORKERS, Lab, wait_for
from cluster.miniray import MiniRay

from umd_bench.config.errors import UserError
from umd_bench.config.launch.ray import RayConfig
from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.registry import EXECUTORS, start_executor
from umd_bench.store import StageState, stage_state

pytestmark = pytest.mark.slow
Case = Callable[[Lab, pytest.MonkeyPatch], None]


def success(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = lab.run("succeed", "succeed", "succeed")
    assert [item.reason for item in ended] == [None] * 3
    assert all(lab.dir(item.key).result() for item in ended)
    assert lab.executor.poll(0) == []


def exception(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    failed, leaked, good = lab.run("fail no such thing", "raise from the depths", "succeed")
    assert failed.reason is None
    failure = lab.dir(failed.key).failure()
    assert failure is not None
    assert failure.message == "no such thing"
    assert leaked.reason is EndReason.DIED
    assert "from the depths" in leaked.message
    assert good.reason is None


def hard_exit(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    exited, good = lab.run("exit 3", "succeed")
    assert exited.reason is EndReason.DIED
    assert stage_state(lab.dir(exited.key)) is StageState.INTERRUPTED
    assert good.reason is None


def out_of_memory(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    full, good = lab.run("fill-memory", "succeed")
    failure = lab.dir(full.key).failure()
    assert failure is not None
    assert failure.state == "oom"
    assert good.reason is None


def output_is_kept(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the attempt's folder, a hard exit's last words too where the stage has a process of its own."""
    printed, crashed = lab.run("print some words", "succeed" if lab.name == "inline" else "print-and-exit last words")
    text = (lab.dir(printed.key).attempt_path(1) / "output.log").read_text()
    assert [words in text for words in ("some words", "complained of some words", "below Python some words")] == [True] * 3
    if lab.name != "inline":
        assert "last words" in (lab.dir(crashed.key).attempt_path(1) / "output.log").read_text()


def unpicklable_result(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [ended] = lab.run("return-a-function")
    assert ended.reason is None
    assert lab.dir(ended.key).result() is not None


def cancel_before_it_began(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [*kept, dropped] = lab.submit(*["sleep"] * lab.workers, "succeed")
    lab.executor.cancel(dropped)
    lab.executor.cancel("f" * 16)  # nobody's: left alone
    lab.go(*kept)
    ended = lab.collect([*kept, dropped])
    assert [ended.pop(dropped).reason, *(item.reason for item in ended.values())] == [EndReason.CANCELLED, *[None] * len(kept)]
    assert lab.dir(dropped).attempts() == []


def cancel_while_it_runs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [dropped, kept] = lab.submit("sleep", "sleep")
    lab.pid(dropped)
    lab.pid(kept)
    lab.executor.cancel(dropped)
    assert lab.collect([dropped])[dropped].reason is EndReason.CANCELLED
    assert [event["state"] for event in lab.dir(dropped).events() if event["event"] == "state"][-1] == "stopped"
    assert stage_state(lab.dir(kept)) is StageState.RUNNING
    lab.go(kept)
    assert lab.collect([kept])[kept].reason is None


def worker_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    [killed, beside] = lab.submit("sleep", "sleep")
    pid = lab.pid(killed)
    lab.pid(beside)
    os.kill(pid, signal.SIGKILL)
    assert lab.collect([killed])[killed].reason is EndReason.DIED
    assert stage_state(lab.dir(killed)) is StageState.INTERRUPTED
    lab.go(killed, beside)
    assert lab.collect([beside])[beside].reason is None
    lab.executor.submit(killed)
    assert lab.collect([killed])[killed].reason is None
    assert lab.dir(killed).attempts() == [1, 2]


def submitting_side_killed(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.close()
    keys = lab.stages("succeed", "sleep", "sleep")
    quick, slept, woken = keys
    side = lab.submitting_side(keys)
    wait_for(lambda: lab.dir(quick).result() is not None, "the quick stage's result")
    lab.pid(slept)
    if lab.name != "inline":
        lab.pid(woken)
    side.kill()
    side.wait(timeout=30)
    lab.go(woken)  # it finishes while nobody watches, where it can
    if lab.name in OUTLIVES:
        wait_for(lambda: lab.dir(woken).result() is not None, "a result without a submitting side")
    executor = lab.executor
    adopted = executor.adopt(keys)
    assert lab.name not in OUTLIVES or slept in adopted
    lab.go(slept)
    collected = lab.collect(adopted)
    assert all(item.reason is None for item in collected.values())
    wait_for(lambda: all(stage_state(lab.dir(key)) is not StageState.RUNNING for key in keys), "all that ran ended")
    left = [key for key in keys if lab.dir(key).result() is None]
    assert lab.name not in OUTLIVES or left == []
    for key in left:
        executor.submit(key)
    lab.collect(left)
    assert all(lab.dir(key).result() for key in keys)
    if lab.name in OUTLIVES:
        assert [lab.dir(key).attempts() for key in keys] == [[1]] * 3, "a stage ran twice"


def status_service_fails(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    _silent_service(lab, monkeypatch, "exit 1")


def status_service_is_empty(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    _silent_service(lab, monkeypatch, "exit 0")


def _silent_service(lab: Lab, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
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
            assert lab.executor.poll(0.2) == [], "a job was given up because nobody answered"
    lab.go(running, queued)
    assert {item.reason for item in lab.collect([running, queued]).values()} == {None}
    assert lab.dir(running).attempts() == [1]


def two_hundred_jobs(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    if lab.name in OUTLIVES:  # fewer jobs of more stages, in more than one array: as many jobs take a minute
        lab.close()
        lab.cluster = lab.cluster.model_copy(update={"pack": 5 if lab.name == "slurm" else 20})
    ended = lab.run(*["succeed"] * 200)
    assert {item.reason for item in ended} == {None}
    assert all(lab.dir(item.key).attempts() == [1] for item in ended)


def stop(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Last, since it is the end of the executor."""
    [running] = lab.submit("sleep")
    if lab.name != "inline":
        lab.pid(running)
    lab.executor.stop()
    lab.collect([running])
    assert stage_state(lab.dir(running)) in (StageState.INTERRUPTED, StageState.NEW)
    lab.close()


OUTLIVES = ("submitit-local", "slurm")
CASES: dict[str, Case] = {
    case.__name__: case
    for case in (
        success, exception, hard_exit, out_of_memory, output_is_kept, unpicklable_result,
        cancel_before_it_began, cancel_while_it_runs,
        worker_killed, status_service_fails, status_service_is_empty, submitting_side_killed, two_hundred_jobs, stop,
    )
}  # fmt: skip
# What an executor cannot meet with, and why.
CANNOT: dict[str, dict[str, str]] = {
    "inline": {
        "hard_exit": "the stage runs in the command's own process and takes it along",
        "worker_killed": "its worker is the command",
        "cancel_while_it_runs": "the thread that would cancel is the one that runs the stage",
        "status_service_fails": "there is no service between it and its stage",
        "status_service_is_empty": "there is no service between it and its stage",
    },
    "ray": {
        "status_service_fails": "its workers' answers come with their results; a Ray that is gone takes them along",
        "status_service_is_empty": "its workers' answers come with their results; a Ray that is gone takes them along",
    },
    "ray-address": {
        "status_service_fails": "its workers' answers come with their results; a head that is gone is tested in test_ray.py",
        "status_service_is_empty": "its workers' answers come with their results; a head that is gone is tested in test_ray.py",
    },
    "submitit-local": {
        "status_service_fails": "a process of this machine is there or is not",
        "status_service_is_empty": "a process of this machine is there or is not",
    },
    "slurm": {},
}
COLUMNS = (*EXECUTORS, "ray-address")  # a Ray that runs already, by its address
HAD = [(name, case) for name in COLUMNS for case in CASES if case not in CANNOT[name]]


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


@pytest.mark.parametrize(("name", "case"), HAD)
def test_an_executor_keeps_its_promises(
    name: str, case: str, labs: dict[str, Lab], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "slurm":
        request.getfixturevalue("slurm")
    if name == "ray-address":
        labs["ray"].close()  # a process is connected to one Ray at a time
        labs.setdefault(name, request.getfixturevalue("on_a_running_ray"))
    elif name == "ray" and "ray-address" in labs:
        labs["ray-address"].close()
    CASES[case](labs[name], monkeypatch)


def test_every_case_that_is_not_run_is_one_that_exists_and_has_its_reason() -> None:
    assert set(CANNOT) == set(COLUMNS)
    assert all(set(reasons) <= set(CASES) and all(reasons.values()) for reasons in CANNOT.values())


def test_an_unknown_executor_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of inline, ray, slurm, submitit-local"):
        start_executor("pbs", tmp_path, tmp_path, workers=1, threads=1)
