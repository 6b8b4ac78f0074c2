"""A stage's time left follows from its speed, and a sweep's from the mean time of its finished stages."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from orchestration.scripted import ScriptedExecutor
from orchestration.small import write_small

from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.orchestration.monitor.time_left import StageProgress, TimeLeft, clock
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid
from umd_bench.store import RunDir


def nodes_of(root: Path, seeds: str) -> dict[str, Node]:
    return build_graph(root, load_sweep(write_small(root), sets=(f"seeds={seeds}", "stages=[pretrain]")).trials)


def test_a_training_stage_is_estimated_by_its_images_per_second(tmp_path: Path) -> None:
    node = next(iter(nodes_of(tmp_path, "[0]").values()))
    left = TimeLeft(tmp_path)
    assert left.of_stage(node, StageProgress()) is None
    assert left.of_stage(node, StageProgress(0.5, 64.0)) == pytest.approx(node.spec.stage.nimg / 2 / 64)


def test_a_stage_without_a_speed_is_estimated_by_its_progress_since_the_first_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    node = next(iter(nodes_of(tmp_path, "[0]").values()))
    left = TimeLeft(tmp_path)
    assert left.of_stage(node, StageProgress(0.2)) is None
    now[0] += 10
    assert left.of_stage(node, StageProgress(0.4)) == pytest.approx(30)


def test_a_sweep_is_estimated_when_a_stage_of_every_unfinished_name_has_finished(tmp_path: Path) -> None:
    def run(run: RunDir, tries: int) -> None:
        with run.begin() as attempt:
            attempt.finish({"metrics": {}, "cost": {"seconds": 8.0}})

    done = nodes_of(tmp_path, "[0]")
    left = TimeLeft(tmp_path)
    assert left.of_sweep(done.values(), {}, 1) is None
    Scheduler(tmp_path, Grid(done), poll_seconds=0).run(ScriptedExecutor(tmp_path, dict.fromkeys(done, run)))
    nodes = nodes_of(tmp_path, "[0, 1]")
    first, _ = (key for key in nodes if key not in done)
    assert left.of_sweep(nodes.values(), {}, 1) == pytest.approx(16)
    assert left.of_sweep(nodes.values(), {first: StageProgress(0.5)}, 2) == pytest.approx(6)


def test_a_time_is_printed_as_on_a_clock() -> None:
    assert [clock(seconds) for seconds in (5.4, 750, 3723)] == ["0:05", "12:30", "1:02:03"]
