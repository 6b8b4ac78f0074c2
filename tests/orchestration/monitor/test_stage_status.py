"""The status as JSON: its schema does not change, every state is reported, and a shared stage is listed once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from orchestration.scripted import ScriptedExecutor, die, fail_with
from orchestration.small import write_small

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Sweep, load_sweep
from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.jobs.records import Claim, JobRecords
from umd_bench.orchestration.graph import build_graph, sweep_record
from umd_bench.orchestration.monitor.stage_status import StatusReader, status_json, trial_state
from umd_bench.orchestration.monitor.status import status_table
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid
from umd_bench.store import RunDir, StageState, write_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    """Two trials failed for different reasons, one has not started, and one is half done."""
    sweep = load_sweep(write_small(tmp_path))
    nan, dead, new, half = (trial.specs for trial in sweep.trials)
    scripts = {nan["pretrain"].key: fail_with("loss is not finite", "nan"), dead["pretrain"].key: die}
    trials = [trial for trial in sweep.trials if trial.specs is not new]
    nodes = build_graph(tmp_path, trials)
    for name in ("finetune", "finetune_probe", "generate"):
        del nodes[half[name].key]
    Scheduler(tmp_path, Grid(nodes), poll_seconds=0).run(ScriptedExecutor(tmp_path, scripts))
    write_sweep(tmp_path, sweep_record(sweep))
    return sweep


def test_the_schema_has_every_state_attempt_and_failure(tmp_path: Path, sweep: Sweep) -> None:
    status = json.loads(json.dumps(status_json(tmp_path, None)))
    assert set(status) == {"schema", "results", "sweeps", "stages"}
    assert status["schema"] == 1
    (small,) = status["sweeps"]
    assert set(small) == {"name", "question", "tier", "complete", "counts", "pruned", "trials"}
    assert small["counts"] == {"new": 16, "running": 0, "interrupted": 0, "failed": 2, "done": 2}
    assert not small["complete"]
    assert [trial["state"] for trial in small["trials"]] == ["failed", "failed", "new", "new"]
    assert set(small["trials"][0]) == {"id", "method", "seed", "axes", "state", "pruned", "stages"}
    assert [trial["id"] for trial in small["trials"]] == [trial.id for trial in sweep.trials]
    failed, died, _, half = (status["stages"][trial.specs["pretrain"].key] for trial in sweep.trials)
    assert failed == {
        "state": "failed",
        "attempts": 1,
        "submitted": False,
        "failure": {"state": "nan", "fingerprint": "loss is not finite", "message": "loss is not finite"},
    }
    assert (died["attempts"], died["failure"]["state"]) == (3, "died")
    assert half == {"state": "done", "attempts": 1, "submitted": False, "failure": None}
    assert len(status["stages"]) == 20


def test_one_sweep_is_listed_alone_and_an_unknown_one_is_an_error(tmp_path: Path, sweep: Sweep) -> None:
    assert status_json(tmp_path, "small") == status_json(tmp_path, None)
    with pytest.raises(UserError, match=r"no sweep 'other'.*small"):
        status_json(tmp_path, "other")


def test_a_stage_is_running_while_its_attempt_is_open_and_then_interrupted(tmp_path: Path, sweep: Sweep) -> None:
    spec = sweep.trials[2].specs["pretrain"]
    run = RunDir(tmp_path, spec.key)
    run.prepare(spec)
    reader = StatusReader(tmp_path)
    with run.begin():
        assert reader.read([spec.key])[spec.key].state is StageState.RUNNING
    assert reader.read([spec.key])[spec.key].state is StageState.INTERRUPTED


def test_reading_the_status_changes_nothing_on_disk(tmp_path: Path, sweep: Sweep) -> None:
    before = sorted(tmp_path.rglob("*"))
    status_json(tmp_path, None)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_trials_state_is_the_most_urgent_of_its_stages() -> None:
    assert trial_state([StageState.DONE, StageState.RUNNING, StageState.FAILED]) is StageState.FAILED
    assert trial_state([StageState.DONE, StageState.RUNNING, StageState.NEW]) is StageState.RUNNING
    assert trial_state([StageState.DONE, StageState.NEW]) is StageState.NEW
    assert trial_state([StageState.DONE]) is StageState.DONE


def test_a_stage_whose_job_waits_is_submitted_until_the_job_has_ended(tmp_path: Path, sweep: Sweep) -> None:
    new, half = (trial.specs for trial in sweep.trials[2:])
    waiting, done = new["pretrain"].key, half["pretrain"].key
    jobs = JobRecords(tmp_path)
    for task, key in enumerate((waiting, done)):
        assert jobs.claim(Claim(key, 1, "batch", task))
    stages = status_json(tmp_path, None)["stages"]
    assert (stages[waiting]["state"], stages[waiting]["submitted"]) == ("new", True)
    assert (stages[done]["state"], stages[done]["submitted"]) == ("done", False)
    row = {
        trial: cells
        for trial, *cells in zip(*(column.cells for column in status_table(tmp_path, "small").columns), strict=True)
    }
    assert row[sweep.trials[2].id][0] == "submitted"
    jobs.record_end("batch", waiting, EndReason.CANCELLED)
    assert not status_json(tmp_path, None)["stages"][waiting]["submitted"]
