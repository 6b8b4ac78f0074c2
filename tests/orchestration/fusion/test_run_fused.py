"""Stages of one unit: each one's run directory records its result and that it was fused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from orchestration.small_units import END, diverging, prepare, seeds_of_one_shape

from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.packs.manifest import data_root
from umd_bench.orchestration.fusion import run_fused
from umd_bench.orchestration.fusion.run_fused import run_stages, run_unit
from umd_bench.orchestration.fusion.units import Unit
from umd_bench.orchestration.stage_process.entry_point import Outcome
from umd_bench.orchestration.stage_process.run_stage import run_stage
from umd_bench.store import RunDir, StageState, stage_state


@pytest.fixture(scope="module")
def specs(tmp_path_factory: pytest.TempPathFactory) -> list[StageSpec]:
    return seeds_of_one_shape(tmp_path_factory.mktemp("sweep"), 3)


def mode(root: Path, key: str) -> str | None:
    run = RunDir(root, key)
    here: dict[str, str] = json.loads((run.attempt_path(run.attempts()[-1]) / "environment.json").read_text())
    return here.get("fused")


def warnings(root: Path, key: str) -> list[str]:
    return [event["message"] for event in RunDir(root, key).events() if event["event"] == "warning"]


def result(root: Path, key: str) -> dict[str, Any]:
    found = RunDir(root, key).result()
    assert found is not None
    return found


def after(steps: int, *keys: str) -> Callable[[str], bool]:
    """A ``stop`` that is true for each of ``keys`` after ``steps`` steps."""
    calls: dict[str, int] = {}

    def stop(key: str) -> bool:
        calls[key] = calls.get(key, -1) + 1
        return key in keys and calls[key] >= steps

    return stop


@pytest.mark.slow
def test_stages_of_a_unit_end_as_if_alone_and_record_that_they_were_fused(tmp_path: Path, specs: list[StageSpec]) -> None:
    keys = prepare(tmp_path / "fused", specs)
    unit = Unit.create(tmp_path / "fused", keys)
    assert run_unit(tmp_path / "fused", unit.name, data_root()) == dict.fromkeys(keys, Outcome.DONE)
    prepare(tmp_path / "solo", specs)
    for number, key in enumerate(keys, 1):
        run_stage(tmp_path / "solo", key, data_root())
        fused, solo = result(tmp_path / "fused", key), result(tmp_path / "solo", key)
        assert fused["metrics"] == pytest.approx(solo["metrics"], rel=2e-3)
        assert fused.keys() == solo.keys()
        assert fused["cost"].keys() == solo["cost"].keys()
        assert fused["environment"].pop("fused") == mode(tmp_path / "fused", key) == f"{number} of 3"
        assert fused["environment"] == solo["environment"]
        assert fused["exact"]
        assert mode(tmp_path / "solo", key) is None
        assert not RunDir(tmp_path / "fused", key).is_owned()


@pytest.mark.slow
def test_a_failing_and_a_stopped_stage_leave_the_others_running(tmp_path: Path, specs: list[StageSpec]) -> None:
    lost = diverging(specs[0])
    keys = prepare(tmp_path, [*specs, lost])
    outcomes = run_stages(tmp_path, keys, data_root(), stop=after(3, keys[1]))
    assert [outcomes[key] for key in keys] == [Outcome.DONE, Outcome.STOPPED, Outcome.DONE, Outcome.FAILED]
    failure = RunDir(tmp_path, lost.key).failure()
    assert failure is not None
    assert failure.state == "nan"
    assert run_stage(tmp_path, keys[1], data_root()) is Outcome.DONE
    assert not result(tmp_path, keys[1])["exact"]  # it continued alone
    assert mode(tmp_path, keys[1]) is None
    assert "fused 2 of 3 -> None" in warnings(tmp_path, keys[1])[0]


@pytest.mark.slow
def test_a_stage_that_ran_alone_until_a_stop_continues_alone_in_a_unit_and_stays_exact(
    tmp_path: Path, specs: list[StageSpec]
) -> None:
    keys = prepare(tmp_path, specs)
    stop = after(3, keys[0])
    assert run_stage(tmp_path, keys[0], data_root(), stop=lambda: stop(keys[0])) is Outcome.STOPPED
    assert set(run_stages(tmp_path, keys, data_root()).values()) == {Outcome.DONE}
    assert [mode(tmp_path, key) for key in keys] == [None, "1 of 2", "2 of 2"]
    assert all(result(tmp_path, key)["exact"] for key in keys)
    assert RunDir(tmp_path, keys[0]).attempts() == [1, 2]
    assert warnings(tmp_path, keys[0]) == []


@pytest.mark.slow
def test_stages_with_a_result_or_an_owner_are_left_alone(tmp_path: Path, specs: list[StageSpec]) -> None:
    keys = prepare(tmp_path, specs)
    run_stage(tmp_path, keys[0], data_root())
    with RunDir(tmp_path, keys[1]).begin():
        outcomes = run_stages(tmp_path, keys, data_root())
    assert [outcomes[key] for key in keys] == [Outcome.DONE, Outcome.BUSY, Outcome.DONE]
    assert RunDir(tmp_path, keys[0]).attempts() == [1]
    assert stage_state(RunDir(tmp_path, keys[1])) is StageState.INTERRUPTED
    assert mode(tmp_path, keys[2]) is None  # the only one left, so not fused


@pytest.mark.slow
def test_if_the_shared_work_fails_each_stage_continues_alone_and_records_it(
    tmp_path: Path, specs: list[StageSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **settings: Any) -> None:
        raise torch.OutOfMemoryError("no room for three")

    monkeypatch.setattr(run_fused, "train_fused", full)
    keys = prepare(tmp_path, specs)
    assert set(run_stages(tmp_path, keys, data_root()).values()) == {Outcome.DONE}
    for key in keys:
        message = "3 stages could not be trained as one (OutOfMemoryError: no room for three): this one continues alone"
        assert warnings(tmp_path, key) == [message]
        assert mode(tmp_path, key) is None
        assert RunDir(tmp_path, key).attempts() == [1]
        assert RunDir(tmp_path, key).snapshot(END).exists()


@pytest.mark.slow
def test_output_is_in_every_stages_folder(tmp_path: Path, specs: list[StageSpec], monkeypatch: pytest.MonkeyPatch) -> None:
    keys = prepare(tmp_path, specs[:2])
    silent = prepare(tmp_path / "silent", specs[:2])

    def printing(key: str) -> bool:
        print("a library's words")
        return False

    run_stages(tmp_path, keys, data_root(), stop=printing)
    run_stages(tmp_path / "silent", silent, data_root())
    for key in keys:
        assert "a library's words" in (RunDir(tmp_path, key).attempt_path(1) / "output.log").read_text()
        assert not (RunDir(tmp_path / "silent", key).attempt_path(1) / "output.log").exists()
