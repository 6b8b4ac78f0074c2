"""The pool of Ray actors without a Ray: what it asks of its actors, and what it leaves when it cannot begin."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from orchestration.small import write_small

from umd_bench.config.launch.ray import RayConfig
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration import launch
from umd_bench.orchestration.executors.ray import actors as ray_actors
from umd_bench.orchestration.graph import build_graph
from umd_bench.orchestration.launch import Site
from umd_bench.orchestration.stage_process.entry_point import RUN_STAGE, RankLaunch

GPUS = 8


class MadeUpRay:
    """A machine of many cores and GPUs."""

    closed = 0

    def __init__(self, **_: int) -> None:
        type(self).closed = 0

    def gpus(self) -> float:
        return GPUS

    def room(self, threads: int, gpus: float) -> int:
        return 8

    def close(self) -> None:
        type(self).closed += 1


class Actor:
    """Notes what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, method: str) -> Any:
        def remote(*arguments: object) -> object:
            self.asked.append((method, *arguments))
            return object()

        return type("Method", (), {"remote": staticmethod(remote)})


@pytest.fixture(autouse=True)
def _made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_actors, "OwnRay", MadeUpRay)
    monkeypatch.setattr(ray_actors.RayExecutor, "_start_actor", lambda self: self._idle.append(Actor()))


@pytest.mark.parametrize("step", ["gpus", "room"])
def test_a_ray_that_was_started_is_ended_when_it_is_of_no_use(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object, *__: object) -> float:
        raise ConnectionError("gone")

    monkeypatch.setattr(MadeUpRay, step, fail)
    with pytest.raises(ConnectionError):
        ray_actors.RayExecutor(tmp_path, tmp_path, workers=2, threads=1)
    assert MadeUpRay.closed == 1


def test_a_ray_whose_actors_cannot_be_made_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(ray_actors.RayExecutor, "_start_actor", fail)
    with pytest.raises(ConnectionError):
        ray_actors.RayExecutor(tmp_path, tmp_path, workers=2, threads=1)
    assert MadeUpRay.closed == 1


def test_a_word_to_stop_that_comes_late_stops_no_later_try_of_the_stage(tmp_path: Path) -> None:
    asked: list[bool] = []

    def note(*_: object, stop: Callable[[], bool], rank_launch: RankLaunch) -> None:
        assert rank_launch.size == 1  # said for one device too, whatever the run directory says by then
        asked.append(stop())

    worker = ray_actors._Worker(str(tmp_path), str(tmp_path), RUN_STAGE)
    worker._run = note
    worker.run("key", 1, 1)
    worker.stop(1)
    worker.run("key", 2, 1)
    worker.stop(3)  # one that comes early is heard
    worker.run("key", 3, 1)
    assert asked == [False, False, True]


@pytest.mark.parametrize(("gpus", "places"), [(0, [1, 2]), (1, [0, 0]), (2, [0, 0])])
def test_a_rank_takes_the_first_gpu_of_its_own_and_shares_those_that_all_see(
    gpus: float, places: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_actors.RayExecutor, "_devices_of", lambda self, key: 3)
    executor = ray_actors.RayExecutor(tmp_path, tmp_path, workers=3, threads=1, devices=3, config=RayConfig(gpus=gpus))
    actors: list[Any] = list(executor._idle)
    executor.submit("key")
    asked = [one for actor in actors for one in actor.asked]
    assert [(key, size) for method, key, _, size in (a for a in asked if a[0] == "run")] == [("key", 3)]
    followed = sorted(one[2:] for one in asked if one[0] == "follow")
    assert followed == [(1, places[0]), (2, places[1])]


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0.0), ("auto", None)])
def test_stages_that_compute_on_cpus_ask_for_no_share_of_a_gpu(
    device: str, gpus: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[RayConfig] = []
    monkeypatch.setattr(launch, "start_executor", lambda *_, ray, **__: asked.append(ray))
    trials = load_sweep(write_small(tmp_path), sets=[f"trial.resources.device={device}"]).trials
    launch._start(list(build_graph(tmp_path, trials).values()), Site(tmp_path, tmp_path), 2)
    assert [config.gpus for config in asked] == [gpus]
