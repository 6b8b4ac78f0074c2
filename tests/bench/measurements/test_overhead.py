"""The cost of scheduling is measured with stages that are real except for their work."""

from __future__ import annotations

from pathlib import Path

import pytest

from umd_bench.bench.measurements.overhead import _specs, measure_overhead, no_op
from umd_bench.config.errors import UserError
from umd_bench.store import RunDir


def test_stages_without_work_run_through_the_whole_scheduler(tmp_path: Path) -> None:
    result = measure_overhead(stages=8, executor="inline", workers=1, folder=tmp_path)
    assert (result.stages, result.workers) == (8, 1)
    assert result.direct_seconds > 0
    assert result.as_json()["seconds_per_stage"] == result.seconds / 8
    assert list(tmp_path.iterdir()) == [], "its run directories were left behind"


def test_a_stage_without_work_leaves_the_files_of_a_real_one(tmp_path: Path) -> None:
    [spec] = _specs(1)
    RunDir(tmp_path, spec.key).prepare(spec)
    no_op(tmp_path, spec.key, tmp_path)
    run = RunDir(tmp_path, spec.key)
    assert {"environment.json", "events.jsonl", "result.json"} <= {p.name for p in run.attempt_path(1).iterdir()}
    assert [event["state"] for event in run.events()] == ["running", "done"]


def test_more_workers_than_stages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least one for each of 4 workers"):
        measure_overhead(stages=3, executor="inline", workers=4, folder=tmp_path)
