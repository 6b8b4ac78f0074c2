"""The pool of Ray actors, tested without Ray: its requests to the actors, and its clean-up if it cannot start."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from orchestration.small import write_small

from umd_bench.config.launch.ray import RayConfig
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration import launch
from umd_bench.orchestration.executors.ray import executor as ray_executor
from umd_bench.orchestration.executors.ray.actor import StageActor
from umd_bench.orchestration.executors.ray.executor import RayExecutor
from umd_bench.orchestration.executors.ray.private_ray import PrivateRay
from umd_bench.orchestration.graph import build_graph
from umd_bench.orchestration.launch import Site
from umd_bench.orchestration.stage_process.entry_point import RUN_STAGE, RankLaunch

GPUS = 8


class FakeRay(PrivateRay):
    """Reports many cores and GPUs, and starts no Ray."""

    closed = 0

    def __init__(self, **_: int) -> None:
        type(self).closed = 0

    def gpus(self) -> float:
        return GPUS

    def room(self, threads: int, gpus: float) -> int:
        return 8

    def close(self) -> None:
        type(self).closed += 1


class FakeActor:
    """Records the calls of its methods."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, method: str) -> Any:
        def remote(*arguments: object) -> object:
            self.calls.append((method, *arguments))
            return object()

        return type("Method", (), {"remote": staticmethod(remote)})


@pytest.fixture(autouse=True)
def _without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_executor, "PrivateRay", FakeRay)
    monkeypatch.setattr(RayExecutor, "_start_actor", lambda self: self._idle.append(FakeActor()))


@pytest.mark.parametrize("step", ["gpus", "room"])
def test_a_ray_that_cannot_be_used_is_closed(step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object, *__: object) -> float:
        raise ConnectionError("gone")

    monkeypatch.setattr(FakeRay, step, fail)
    with pytest.raises(ConnectionError):
        RayExecutor(tmp_path, tmp_path, workers=2, threads=1)
    assert FakeRay.closed == 1


def test_a_ray_whose_actors_cannot_be_created_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise ConnectionError("gone")

    monkeypatch.setattr(RayExecutor, "_start_actor", fail)
    with pytest.raises(ConnectionError):
        RayExecutor(tmp_path, tmp_path, workers=2, threads=1)
    assert FakeRay.closed == 1


@pytest.mark.parametrize(("workers", "share"), [(8, 1.0), (4, 1.0), (16, 0.5), (24, 0.3333)])
def test_workers_share_the_gpus_of_the_machine_in_equal_parts(workers: int, share: float) -> None:
    assert FakeRay().gpus_per_stage(None, workers) == share
    assert FakeRay().gpus_per_stage(0.25, workers) == 0.25


def test_a_late_request_to_stop_does_not_stop_the_next_call(tmp_path: Path) -> None:
    stopped: list[bool] = []

    def note(*_: object, stop: Callable[[], bool], rank_launch: RankLaunch) -> None:
        assert rank_launch.size == 1  # passed even if it is 1, since the run directory's config may have changed
        stopped.append(stop())

    actor = StageActor(str(tmp_path), str(tmp_path), RUN_STAGE)
    actor._run = note
    actor.run("key", 1, 1)
    actor.stop(1)
    actor.run("key", 2, 1)
    actor.stop(3)  # a request that comes before its call stops that call
    actor.run("key", 3, 1)
    assert stopped == [False, False, True]


@pytest.mark.parametrize(("gpus", "local"), [(0, [1, 2]), (1, [0, 0]), (2, [0, 0])])
def test_a_rank_takes_the_first_gpu_of_its_actor_or_the_gpu_of_its_number_if_all_actors_see_all_gpus(
    gpus: float, local: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RayExecutor, "_devices_of", lambda self, key: 3)
    executor = RayExecutor(tmp_path, tmp_path, workers=3, threads=1, devices=3, config=RayConfig(gpus=gpus))
    actors: list[Any] = list(executor._idle)
    executor.submit("key")
    calls = [call for actor in actors for call in actor.calls]
    assert [(key, size) for method, key, _, size in (call for call in calls if call[0] == "run")] == [("key", 3)]
    followed = sorted(call[2:] for call in calls if call[0] == "follow")
    assert followed == [(1, local[0]), (2, local[1])]


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0.0), ("auto", None)])
def test_stages_that_compute_on_cpus_request_no_share_of_a_gpu(
    device: str, gpus: float | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs: list[RayConfig] = []
    monkeypatch.setattr(launch, "start_executor", lambda *_, ray, **__: configs.append(ray))
    trials = load_sweep(write_small(tmp_path), sets=[f"trial.resources.device={device}"]).trials
    launch._start(list(build_graph(tmp_path, trials).values()), Site(tmp_path, tmp_path), 2)
    assert [config.gpus for config in configs] == [gpus]
