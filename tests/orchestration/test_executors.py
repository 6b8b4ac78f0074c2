"""One suite over every executor: the promises of ``executors/contract.py``."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from orchestration.small import write_small

from umd_bench.config.errors import UserError
from umd_bench.config.resolve import load_sweep
from umd_bench.config.stage import StageSpec
from umd_bench.data.pack import data_root
from umd_bench.orchestration.executors import EXECUTORS, Ended, Executor, Kind, start_executor
from umd_bench.store import RunDir, StageState, stage_state

pytestmark = pytest.mark.slow
DEADLINE_SECONDS = 120.0


@pytest.fixture(scope="module", params=sorted(EXECUTORS))
def executor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    root = tmp_path_factory.mktemp(request.param)
    started = start_executor(request.param, root, data_root(), workers=2, threads=1)
    started.root = root  # type: ignore[attr-defined]
    yield started
    started.close()
    started.close()


@pytest.fixture
def root(executor: Executor) -> Path:
    return executor.root  # type: ignore[attr-defined, no-any-return]


def specs(folder: Path, *sets: str) -> list[StageSpec]:
    return [trial.specs["pretrain"] for trial in load_sweep(write_small(folder), sets=sets).trials]


def collect(executor: Executor, keys: list[str]) -> dict[str, Ended]:
    ended: dict[str, Ended] = {}
    deadline = time.monotonic() + DEADLINE_SECONDS
    while set(ended) != set(keys):
        assert time.monotonic() < deadline, f"only {len(ended)} of {len(keys)} stages ended"
        for item in executor.poll(0.2):
            assert item.key not in ended, "a stage was returned twice"
            ended[item.key] = item
    return ended


def submit(executor: Executor, root: Path, stages: list[StageSpec]) -> list[str]:
    for spec in stages:
        RunDir(root, spec.key).prepare(spec)
        executor.submit(spec.key)
    return [spec.key for spec in stages]


def test_every_submitted_stage_is_returned_once_and_done(executor: Executor, root: Path, tmp_path: Path) -> None:
    keys = submit(executor, root, specs(tmp_path))
    ended = collect(executor, keys)
    assert all(item.kind is None for item in ended.values())
    assert {stage_state(RunDir(root, key)) for key in keys} == {StageState.DONE}
    assert executor.poll(0) == []


def test_a_failing_stage_ends_alone(executor: Executor, root: Path, tmp_path: Path) -> None:
    broken = specs(tmp_path, "seeds=[5]", "trial.stages.pretrain.optim={lr_per_256: 1e30, warmup_nimg: 0, clip_norm: 1e30}")[:1]
    good = specs(tmp_path, "seeds=[6]")[:1]
    keys = submit(executor, root, broken + good)
    collect(executor, keys)
    assert [stage_state(RunDir(root, key)) for key in keys] == [StageState.FAILED, StageState.DONE]


def test_a_stage_runs_with_its_own_threads(executor: Executor, root: Path, tmp_path: Path) -> None:
    keys = submit(executor, root, specs(tmp_path, "seeds=[7]")[:1])
    collect(executor, keys)
    result = RunDir(root, keys[0]).result()
    assert result is not None
    assert result["environment"]["threads"] == 1


def test_a_killed_worker_ends_its_stage_and_the_next_one_runs(executor: Executor, root: Path, tmp_path: Path) -> None:
    if executor.name == "inline":
        return  # its worker is the caller
    long = specs(tmp_path, "seeds=[8]", "trial.stages.pretrain.nimg=640000")[:1]
    key = submit(executor, root, long)[0]
    events = RunDir(root, key).attempt_path(1) / "events.jsonl"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not events.exists() or "pid" not in events.read_text():
        assert time.monotonic() < deadline
        executor.poll(0.1)
    pid = next(event["pid"] for event in RunDir(root, key).events() if "pid" in event)
    os.kill(pid, signal.SIGKILL)
    ended = collect(executor, [key])
    assert ended[key].kind is Kind.DIED
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    assert stage_state(RunDir(root, key)) is StageState.INTERRUPTED
    keys = submit(executor, root, specs(tmp_path, "seeds=[9]")[:1])
    assert collect(executor, keys)[keys[0]].kind is None


def test_an_unknown_executor_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of inline, ray"):
        start_executor("pbs", tmp_path, tmp_path, workers=1, threads=1)
