"""Watching reads run directories only, ends when the sweep is complete, and Ctrl-C changes nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from orchestration.scripted import fail_with, succeed
from orchestration.small import write_small
from rich.console import Console

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Sweep, load_sweep
from umd_bench.orchestration.graph import sweep_record
from umd_bench.orchestration.monitor.watch import Watcher, summary, watch
from umd_bench.store import RunDir, StageState, write_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    sweep = load_sweep(write_small(tmp_path))
    write_sweep(tmp_path, sweep_record(sweep))
    return sweep


def prepared(root: Path, sweep: Sweep, trial: int, stage: str = "pretrain") -> RunDir:
    run = RunDir(root, sweep.trials[trial].specs[stage].key)
    run.prepare(sweep.trials[trial].specs[stage])
    return run


def test_a_view_has_counts_speed_time_left_and_failures(tmp_path: Path, sweep: Sweep) -> None:
    watcher = Watcher(tmp_path, "small")
    assert watcher.view().counts == {StageState.NEW: 20}
    succeed(prepared(tmp_path, sweep, 1), 0)
    for trial in (2, 3):
        fail_with("it broke")(prepared(tmp_path, sweep, trial), 0)
    with prepared(tmp_path, sweep, 0).begin() as attempt:
        attempt.event("metrics", nimg=320, loss=0.5, images_per_second=64.0)
        view = watcher.view()
    (running,) = view.running
    assert (running.trial, running.stage) == (sweep.trials[0].id, "pretrain")
    assert running.progress.fraction == 0.5
    assert running.seconds_left == pytest.approx(320 / 64)
    assert summary(view) == "small: 1/20 stages done, 16 new, 1 running, 2 failed, 64 images/s"
    ((name, failure),) = view.failures
    assert name.endswith("and 1 alike")
    assert failure.headline == "it broke"


def test_watching_ends_when_the_sweep_is_complete_and_includes_trials_added_meanwhile(tmp_path: Path, sweep: Sweep) -> None:
    record = sweep_record(sweep)
    write_sweep(tmp_path, record.model_copy(update={"trials": record.trials[:1]}))
    views = 0

    def sleep(seconds: float) -> None:
        nonlocal views
        views += 1
        write_sweep(tmp_path, record)
        for stage in sweep.trials[views - 1].specs:
            succeed(prepared(tmp_path, sweep, views - 1, stage), 0)

    out = io.StringIO()
    watch(tmp_path, "small", Console(file=out, width=200), sleep=sleep)
    assert views == 4
    assert "small: 20/20 stages done" in out.getvalue().splitlines()[-1]


def test_ctrl_c_stops_watching_and_changes_nothing(tmp_path: Path, sweep: Sweep) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    before = sorted(tmp_path.rglob("*"))
    for terminal in (False, True):
        out = io.StringIO()
        watch(tmp_path, "small", Console(file=out, width=200, force_terminal=terminal), sleep=interrupt)
        assert "the sweep continues" in out.getvalue()
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(UserError, match="no sweep"):
        watch(tmp_path, "other", Console(file=io.StringIO()))
