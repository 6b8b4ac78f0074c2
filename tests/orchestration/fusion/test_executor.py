"""The fusing executor keeps the executors' promises for every stage of a unit."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from orchestration.small_units import diverging, prepare, seeds_of_one_shape

from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.packs.manifest import data_root
from umd_bench.engine.fusion.shape import shape_key
from umd_bench.orchestration.executors.contract import Ended, EndReason, Executor, InCallersThread
from umd_bench.orchestration.executors.registry import start_executor
from umd_bench.orchestration.fusion.executor import fusing
from umd_bench.orchestration.fusion.units import RUN_UNIT
from umd_bench.store import RunDir, StageState, stage_state

DEADLINE_SECONDS = 120.0
LONG = "trial.stages.pretrain.nimg=640000"  # no test waits for its end


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> list[StageSpec]:
    return seeds_of_one_shape(tmp_path_factory.mktemp("sweep"), 4)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> list[StageSpec]:
    return seeds_of_one_shape(tmp_path_factory.mktemp("long"), 3, LONG)


def start(root: Path, specs: list[StageSpec], on: str = "inline", size: int = 3) -> Executor:
    shape = shape_key(specs[0])
    assert shape is not None
    inner = start_executor(on, root, data_root(), workers=1, threads=1, entry_point=RUN_UNIT)
    return fusing(root, inner, {shape: size})


@pytest.fixture
def inline(tmp_path: Path, specs: list[StageSpec]) -> Iterator[Executor]:
    executor = start(tmp_path, specs)
    yield executor
    executor.close()
    executor.close()


def collect(executor: Executor, keys: list[str]) -> dict[str, Ended]:
    """Poll until every key has been returned. Fails if poll returns one of them twice, or any other key."""
    ended: dict[str, Ended] = {}
    deadline = time.monotonic() + DEADLINE_SECONDS
    while set(ended) != set(keys):
        assert time.monotonic() < deadline, f"only {len(ended)} of {len(keys)} stages ended"
        for item in executor.poll(0.2):
            assert item.key in keys
            assert item.key not in ended, "a stage was returned twice"
            ended[item.key] = item
    assert executor.poll(0) == []
    return ended


def submit(executor: Executor, root: Path, specs: list[StageSpec]) -> list[str]:
    keys = prepare(root, specs)
    for key in keys:
        executor.submit(key)
    return keys


def mode(root: Path, key: str) -> str | None:
    result = RunDir(root, key).result()
    assert result is not None
    fused: str | None = result["environment"].get("fused")
    return fused


@pytest.mark.slow
def test_stages_of_one_shape_are_one_unit_and_each_is_polled_once(
    inline: Executor, tmp_path: Path, specs: list[StageSpec]
) -> None:
    keys = submit(inline, tmp_path, specs)
    assert inline.slots == 3
    assert [item.reason for item in collect(inline, keys).values()] == [None] * 4
    assert [mode(tmp_path, key) for key in keys] == ["1 of 3", "2 of 3", "3 of 3", None]
    assert not list((tmp_path / "fusing" / "units").iterdir())


@pytest.mark.slow
def test_stages_of_other_shapes_are_submitted_alone(tmp_path: Path, specs: list[StageSpec]) -> None:
    executor = start(tmp_path, specs)
    fields = specs[1].model_dump(mode="json")
    fields["stage"]["batch"] = 32
    keys = submit(executor, tmp_path, [specs[0], StageSpec.model_validate(fields), specs[2]])
    collect(executor, keys)
    assert [mode(tmp_path, key) for key in keys] == ["1 of 2", None, "2 of 2"]


@pytest.mark.slow
def test_a_failing_stage_fails_no_other(inline: Executor, tmp_path: Path, specs: list[StageSpec]) -> None:
    keys = submit(inline, tmp_path, [specs[0], diverging(specs[1]), specs[2]])
    assert [item.reason for item in collect(inline, keys).values()] == [None] * 3
    states = [stage_state(RunDir(tmp_path, key)) for key in keys]
    assert states == [StageState.DONE, StageState.FAILED, StageState.DONE]


@pytest.mark.slow
def test_a_stage_cancelled_while_it_waits_never_begins(inline: Executor, tmp_path: Path, specs: list[StageSpec]) -> None:
    keys = submit(inline, tmp_path, specs[:3])
    inline.cancel(keys[1])
    inline.cancel("f" * 16)  # an unknown key is ignored
    ended = collect(inline, keys)
    assert [ended[key].reason for key in keys] == [None, EndReason.CANCELLED, None]
    assert RunDir(tmp_path, keys[1]).attempts() == []


def between_the_next_steps(executor: Executor, act: Callable[[], None]) -> None:
    """Call ``act`` once, between the next two steps."""
    assert isinstance(executor, InCallersThread)
    waiting = [act]
    executor.between_steps = lambda: waiting.pop()() if waiting else None


def last_state(root: Path, key: str) -> str:
    states: list[str] = [event["state"] for event in RunDir(root, key).events() if event["event"] == "state"]
    return states[-1]


@pytest.mark.slow
def test_a_stage_cancelled_while_it_runs_ends_alone(tmp_path: Path, long: list[StageSpec]) -> None:
    executor = start(tmp_path, long)
    keys = submit(executor, tmp_path, long)

    def cancel() -> None:
        executor.cancel(keys[0])
        between_the_next_steps(executor, check)

    def check() -> None:
        if last_state(tmp_path, keys[0]) == "stopped" and not RunDir(tmp_path, keys[0]).is_owned():
            assert RunDir(tmp_path, keys[1]).is_owned()
            executor.stop()
        else:
            between_the_next_steps(executor, check)

    between_the_next_steps(executor, cancel)
    ended = collect(executor, keys)
    assert [ended[key].reason for key in keys] == [EndReason.CANCELLED, None, None]
    assert [last_state(tmp_path, key) for key in keys] == ["stopped"] * 3


@pytest.mark.slow
def test_stop_saves_running_stages_and_begins_no_other(tmp_path: Path, long: list[StageSpec]) -> None:
    executor = start(tmp_path, long, size=2)
    keys = submit(executor, tmp_path, long)
    between_the_next_steps(executor, executor.stop)
    ended = collect(executor, keys)
    assert [ended[key].reason for key in keys] == [None, None, EndReason.CANCELLED]
    assert [len(RunDir(tmp_path, key).attempts()) for key in keys] == [1, 1, 0]
    assert list(RunDir(tmp_path, keys[0]).path.glob("attempt-1/checkpoints/*.safetensors"))


@pytest.mark.slow
def test_a_lost_process_ends_every_stage_of_its_unit_that_had_not_ended(
    inline: Executor, tmp_path: Path, specs: list[StageSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    from umd_bench.orchestration.fusion import run_fused

    real = run_fused._result

    def result_or_kill(spec: StageSpec, *arguments: object) -> object:
        if spec.key == specs[1].key:
            raise KeyboardInterrupt
        return real(spec, *arguments)  # type: ignore[arg-type]

    def run_in_a_lost_process(*arguments: object, **settings: object) -> object:
        try:
            return run_fused.run_unit(*arguments, **settings)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            raise RuntimeError("the process is gone") from None

    monkeypatch.setattr(run_fused, "_result", result_or_kill)
    monkeypatch.setattr(inline._inner, "_run", run_in_a_lost_process)  # type: ignore[attr-defined]
    keys = submit(inline, tmp_path, specs[:3])
    ended = collect(inline, keys)
    assert [ended[key].reason for key in keys] == [None, EndReason.DIED, EndReason.DIED]
    assert [stage_state(RunDir(tmp_path, key)) for key in keys] == [StageState.DONE, *[StageState.INTERRUPTED] * 2]


@pytest.mark.slow
def test_on_ray_one_stage_of_a_unit_can_be_cancelled_and_a_kill_ends_all(tmp_path: Path, long: list[StageSpec]) -> None:
    executor = start(tmp_path, long, on="ray")
    try:
        keys = submit(executor, tmp_path, long)

        def pids() -> list[int]:
            executor.poll(0.1)
            return [event["pid"] for key in keys for event in RunDir(tmp_path, key).events() if "pid" in event]

        deadline = time.monotonic() + DEADLINE_SECONDS
        while len(found := pids()) < 3 or not list(RunDir(tmp_path, keys[2]).path.glob("attempt-1/environment.json")):
            assert time.monotonic() < deadline
        assert len(set(found)) == 1
        executor.cancel(keys[0])
        ended: list[Ended] = []
        while not ended:
            assert time.monotonic() < deadline
            ended = executor.poll(0.2)
        assert [(item.key, item.reason) for item in ended] == [(keys[0], EndReason.CANCELLED)]
        assert RunDir(tmp_path, keys[1]).is_owned()
        os.kill(found[0], signal.SIGKILL)
        assert {item.reason for item in collect(executor, keys[1:]).values()} == {EndReason.DIED}
    finally:
        executor.close()
