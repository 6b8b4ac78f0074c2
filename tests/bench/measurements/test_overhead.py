"""The measurement of the runner's overhead: stages that are real but for their work, and a display that looks seldom."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from umd_bench.bench.measurements.overhead import _nodes, _specs, measure_overhead, no_op
from umd_bench.config.errors import UserError
from umd_bench.orchestration.monitor import live
from umd_bench.orchestration.trial_source import SweepProgress
from umd_bench.store import RunDir, StageState


def test_stages_without_work_run_through_the_whole_runner(tmp_path: Path) -> None:
    found = measure_overhead(stages=8, executor="inline", workers=1, folder=tmp_path)
    assert (found.stages, found.workers) == (8, 1)
    assert found.direct_seconds > 0
    assert found.as_json()["seconds_per_stage"] == found.seconds / 8
    assert list(tmp_path.iterdir()) == [], "its run directories were left behind"


def test_a_stage_without_work_leaves_what_a_real_one_leaves(tmp_path: Path) -> None:
    [spec] = _specs(1)
    RunDir(tmp_path, spec.key).prepare(spec)
    no_op(tmp_path, spec.key, tmp_path)
    run = RunDir(tmp_path, spec.key)
    assert {"environment.json", "events.jsonl", "result.json"} <= {p.name for p in run.attempt_path(1).iterdir()}
    assert [event["state"] for event in run.events()] == ["running", "done"]


def test_more_workers_than_stages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one for each of 4 workers"):
        measure_overhead(stages=3, executor="inline", workers=4, folder=tmp_path)


def test_a_display_looks_at_the_stages_no_more_often_than_it_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = []
    monkeypatch.setattr(live, "read_stage_progress", lambda root, node: looks.append(node.key) or live.StageProgress())
    nodes = _nodes(_specs(5))
    for node in nodes.values():
        node.state = StageState.RUNNING
    with live.LiveDisplay(Console(file=io.StringIO()), tmp_path, 1) as shown:
        for _ in range(100):
            shown.show(SweepProgress(nodes))
    assert looks == []
