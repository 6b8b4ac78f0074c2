"""The projection is idempotent, completes missing values, makes deleted runs again, and cannot harm a sweep."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from pathlib import Path
from typing import Any

import filelock
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from reporting.built_results import TWO_ARMS, build_sweep

from umd_bench.config.errors import UserError
from umd_bench.store import RunDir, SearchRecord, SuggestionRecord, SweepRecord
from umd_bench.store.files import write_json
from umd_bench.tracking import background_projection, projector, trial_contents
from umd_bench.tracking.background_projection import BackgroundProjection
from umd_bench.tracking.projector import MlflowProjector, ProjectionCounts, TrackingError, default_uri, push

pytestmark = pytest.mark.slow

EVALUATIONS = ("finetune_probe", "generate")


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for the module, since making its tables takes seconds. Every test has a sweep with its own name."""
    return default_uri(tmp_path_factory.mktemp("store"))


@pytest.fixture
def client(uri: str) -> MlflowClient:
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _build(root: Path, name: str, **kwargs: Any) -> SweepRecord:
    return build_sweep(root, axes=TWO_ARMS, sets=(f"name={name}", "seeds=[0, 1]"), **kwargs)


def _runs(client: MlflowClient, name: str) -> dict[str, Run]:
    experiment = client.get_experiment_by_name(name)
    assert experiment is not None
    found = client.search_runs([experiment.experiment_id])
    assert len({run.info.run_name for run in found}) == len(found)
    return {run.info.run_name: run for run in found}


def _everything(uri: str, client: MlflowClient, name: str) -> list[tuple[Any, ...]]:
    """All rows that the store has of an experiment's runs."""
    ids = [run.info.run_id for run in _runs(client, name).values()]
    marks = ",".join("?" * len(ids))
    rows: list[tuple[Any, ...]] = []
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as database:
        for table in ("runs", "metrics", "latest_metrics", "params", "tags"):
            rows += sorted(database.execute(f"select * from {table} where run_uuid in ({marks})", ids), key=repr)
    return rows


def test_a_trial_becomes_one_run_with_its_parameters_metrics_and_keys(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    record = _build(tmp_path, "whole")
    assert MlflowProjector(uri, tmp_path).project(record) == ProjectionCounts(created=5)
    runs = _runs(client, "whole")
    assert set(runs) == {"summary", *(trial.id for trial in record.trials)}
    trial = record.trials[0]
    run = runs[trial.id]
    result = RunDir(tmp_path, trial.stages["generate"]).result()
    assert result is not None
    assert run.info.status == "FINISHED"
    assert run.data.metrics["generate/fd_digits_cnn"] == result["metrics"]["fd_digits_cnn"]
    assert run.data.metrics["probe/acc_10shot"] > 0
    assert run.data.params["stages.pretrain.corruption.mask_ratio"] == "0.25"
    width = RunDir(tmp_path, trial.stages["pretrain"]).config().model.width
    assert run.data.params["model.width"] == str(width)
    assert (run.data.params["seed"], run.data.params["method"]) == ("0", "umd")
    assert run.data.tags["umd_bench.key.probe"] == trial.stages["probe"]
    assert (run.data.tags["umd_bench.device"], run.data.tags["umd_bench.torch"]) == ("cpu", "2.14.1")
    assert run.data.tags["mlflow.parentRunId"] == runs["summary"].info.run_id
    assert (run.info.start_time, run.info.end_time) == (1_000_000, 2_000_000)


def test_curves_run_over_images_seen_and_are_thinned_but_keep_their_ends(
    uri: str, client: MlflowClient, tmp_path: Path
) -> None:
    record = _build(tmp_path, "curves")
    MlflowProjector(uri, tmp_path).project(record)
    run = _runs(client, "curves")[record.trials[0].id]
    curve = client.get_metric_history(run.info.run_id, "pretrain/loss")
    assert len(curve) == trial_contents.CURVE_POINTS
    assert (curve[0].step, curve[-1].step) == (128, 40_960)
    assert [point.step for point in curve] == sorted({point.step for point in curve})


def test_projecting_twice_adds_nothing(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    record = _build(tmp_path, "twice")
    MlflowProjector(uri, tmp_path).project(record)
    before = _everything(uri, client, "twice")
    assert MlflowProjector(uri, tmp_path).project(record) == ProjectionCounts(unchanged=5)
    assert _everything(uri, client, "twice") == before


def test_an_interrupted_projection_is_completed_without_repeating_a_value(
    uri: str, client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = _build(tmp_path, "cut")

    def cut(*_: object) -> None:
        raise ConnectionError("gone")

    whole = MlflowProjector._set_status
    monkeypatch.setattr(MlflowProjector, "_set_status", cut)
    with pytest.raises(TrackingError, match="gone"):
        MlflowProjector(uri, tmp_path).project(record)
    monkeypatch.setattr(MlflowProjector, "_set_status", whole)
    assert MlflowProjector(uri, tmp_path).project(record) == ProjectionCounts(created=3, completed=1, unchanged=1)
    run = _runs(client, "cut")[record.trials[0].id]
    assert len(client.get_metric_history(run.info.run_id, "pretrain/loss")) == trial_contents.CURVE_POINTS
    assert len(client.get_metric_history(run.info.run_id, "probe/acc_10shot")) == 1


def test_a_trial_that_has_continued_is_completed_and_not_repeated(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    trial = "mask_ratio=0.5,seed=1"
    record = _build(tmp_path, "progress", skipped={trial: EVALUATIONS})
    MlflowProjector(uri, tmp_path).project(record)
    first = _runs(client, "progress")[trial]
    assert first.info.status == "RUNNING"
    assert "generate/fd_digits_cnn" not in first.data.metrics
    _build(tmp_path, "progress")
    assert MlflowProjector(uri, tmp_path).project(record) == ProjectionCounts(completed=1, unchanged=4)
    second = _runs(client, "progress")[trial]
    assert (second.info.run_id, second.info.status) == (first.info.run_id, "FINISHED")
    assert second.data.metrics["generate/fd_digits_cnn"] > 0
    assert len(client.get_metric_history(second.info.run_id, "pretrain/loss")) == trial_contents.CURVE_POINTS


def test_a_failed_trial_is_shown_as_failed_and_recovers(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    trial = "mask_ratio=0.5,seed=1"
    record = _build(tmp_path, "failed", failed={(trial, "finetune"): "nan"}, skipped={trial: EVALUATIONS})
    MlflowProjector(uri, tmp_path).project(record)
    assert _runs(client, "failed")[trial].info.status == "FAILED"
    assert _runs(client, "failed")["mask_ratio=0.25,seed=0"].info.status == "FINISHED"
    _build(tmp_path, "failed")
    MlflowProjector(uri, tmp_path).project(record)
    assert _runs(client, "failed")[trial].info.status == "FINISHED"


def test_a_trial_that_a_search_pruned_is_shown_as_ended(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    trial = "mask_ratio=0.25,seed=0"
    built = _build(tmp_path, "pruned", skipped={trial: EVALUATIONS})
    config = {
        "trials": 1,
        "space": {"model.width": {"low": 8, "high": 16}},
        "objectives": {"probe.acc_10shot": "maximise"},
        "pruner": {"kind": "median"},
    }
    suggestion = SuggestionRecord(number=0, arm={}, values={}, trials=(trial,), state="pruned", rungs={0.25: 0.3})
    search = SearchRecord.model_validate({"config": config, "arms": 1, "suggestions": [suggestion]})
    record = built.model_copy(update={"search": search})
    for _ in range(2):
        MlflowProjector(uri, tmp_path).project(record)
        found = _runs(client, "pruned")
        assert found[trial].info.status == "KILLED"
        assert found["mask_ratio=0.25,seed=1"].info.status == "FINISHED"


def test_deleted_runs_are_made_again_with_the_same_contents(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    record = _build(tmp_path, "rebuilt")
    MlflowProjector(uri, tmp_path).project(record)
    before = {name: (run.data.metrics, run.data.params) for name, run in _runs(client, "rebuilt").items()}
    for run in _runs(client, "rebuilt").values():
        client.delete_run(run.info.run_id)
    assert MlflowProjector(uri, tmp_path).project(record) == ProjectionCounts(created=5)
    assert {name: (run.data.metrics, run.data.params) for name, run in _runs(client, "rebuilt").items()} == before


def test_an_experiment_deleted_by_hand_comes_back(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    record = _build(tmp_path, "restored")
    MlflowProjector(uri, tmp_path).project(record)
    client.delete_experiment(client.get_experiment_by_name("restored").experiment_id)
    assert MlflowProjector(uri, tmp_path).project(record) == ProjectionCounts(unchanged=5)
    assert len(_runs(client, "restored")) == 5


def test_a_store_file_deleted_while_in_use_is_reported(uri: str, tmp_path: Path) -> None:
    other = default_uri(tmp_path)
    database = sqlite3.connect(other.removeprefix("sqlite:///"))
    with sqlite3.connect(uri.removeprefix("sqlite:///")) as made:
        made.backup(database)
    database.close()
    record = _build(tmp_path, "deleted")
    projection = MlflowProjector(other, tmp_path)
    projection.project(record)
    (tmp_path / "mlflow.db").unlink()
    with pytest.raises(TrackingError, match="removed or replaced"):
        projection.project(record)


def test_files_are_stored_with_their_runs(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    record = _build(tmp_path, "files")
    (tmp_path / "sweeps/files/table.md").write_text("# A table\n")
    MlflowProjector(uri, tmp_path).project(record)
    runs = _runs(client, "files")
    samples = client.list_artifacts(runs[record.trials[0].id].info.run_id, "generate")
    assert [file.path for file in samples] == ["generate/samples.png"]
    assert [file.path for file in client.list_artifacts(runs["summary"].info.run_id)] == ["table.md"]
    assert runs["summary"].data.tags["mlflow.note.content"] == "# A table\n"
    assert Path(runs["summary"].info.artifact_uri.removeprefix("file://")).is_relative_to(tmp_path / "mlartifacts")
    (tmp_path / "sweeps/files/table.md").write_text("# Another\n")
    assert MlflowProjector(uri, tmp_path).project(record) == ProjectionCounts(completed=1, unchanged=4)
    assert _runs(client, "files")["summary"].data.tags["mlflow.note.content"] == "# Another\n"


def test_trials_of_an_earlier_version_of_the_sweep_are_marked(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    record = _build(tmp_path, "edited")
    MlflowProjector(uri, tmp_path).project(record)
    shrunk = record.model_copy(update={"trials": record.trials[:2]})
    MlflowProjector(uri, tmp_path).project(shrunk)
    current = {name: run.data.tags["umd_bench.current"] for name, run in _runs(client, "edited").items()}
    assert [current[trial.id] for trial in record.trials] == ["yes", "yes", "no", "no"]


def test_parameters_fit_one_batch_and_name_the_axes_first(tmp_path: Path) -> None:
    record = _build(tmp_path, "params")
    found = trial_contents.params(tmp_path, record, record.trials[0])
    assert next(iter(found)) == "stages.pretrain.corruption.mask_ratio"
    assert len(found) <= trial_contents.MAX_PARAMS
    assert not any(value == "null" for value in found.values())


def test_an_axis_over_several_fields_is_a_parameter_for_each(tmp_path: Path) -> None:
    record = _build(tmp_path, "joined")
    axis = "stages.finetune_probe.snapshot, stages.generate.snapshot"
    found = trial_contents.params(tmp_path, record, record.trials[0].model_copy(update={"axes": {axis: 0.5}}))
    assert (found["stages.finetune_probe.snapshot"], found["stages.generate.snapshot"]) == ("0.5", "0.5")
    assert not any("," in name for name in found)


def test_a_later_attempt_overwrites_points_of_a_curve(tmp_path: Path) -> None:
    record = _build(tmp_path, "attempts")
    key = record.trials[0].stages["pretrain"]
    second = RunDir(tmp_path, key).attempt_path(2)
    second.mkdir()
    (second / "events.jsonl").write_text(json.dumps({"event": "metrics", "time": 3.0, "nimg": 128, "loss": 7.0}) + "\n")
    points = [p for p in trial_contents.stage_points(tmp_path, "pretrain", key) if p.name == "pretrain/loss"]
    assert (points[0].step, points[0].value) == (128, 7.0)
    assert len({point.step for point in points}) == len(points)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("http://user:secret@127.0.0.1:1", "Connection refused"),
        ("mlruns", "expected sqlite:///FILE"),
        ("sqlite:////proc/nothing/mlflow.db", "No such file or directory"),
    ],
)
def test_an_unusable_store_gives_one_clear_sentence(tmp_path: Path, address: str, reason: str) -> None:
    record = _build(tmp_path, "nowhere")
    with pytest.raises(TrackingError, match=reason) as caught:
        MlflowProjector(address, tmp_path).project(record)
    assert "umd-bench mlflow push" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)


def test_a_password_in_an_error_of_the_store_is_not_shown(uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise ConnectionError("GET https://user:secret@server/api failed. Try again\nand again")

    monkeypatch.setattr(MlflowProjector, "_project", refused)
    with pytest.raises(TrackingError, match=r"\(GET https://\*\*\*@server/api failed\)"):
        MlflowProjector(uri, tmp_path).project(_build(tmp_path, "password"))


def test_a_projection_waits_for_another_one_and_then_reports_it(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = _build(tmp_path, "busy")
    monkeypatch.setattr(projector, "LOCK_SECONDS", 0.05)
    with filelock.FileLock(tmp_path / "mlflow.lock"), pytest.raises(TrackingError, match=r"mlflow\.lock"):
        MlflowProjector(uri, tmp_path).project(record)


def test_a_broken_run_directory_raises_a_tracking_error(uri: str, tmp_path: Path) -> None:
    record = _build(tmp_path, "broken")
    path = RunDir(tmp_path, record.trials[0].stages["probe"]).path / "result.json"
    path.write_text("{")
    with pytest.raises(TrackingError, match="is not JSON"):
        MlflowProjector(uri, tmp_path).project(record)


def test_mlflow_prints_nothing(uri: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    record = _build(tmp_path, "silent")
    MlflowProjector(uri, tmp_path).project(record)
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    assert logging.getLogger("mlflow").level == logging.CRITICAL


def test_push_reports_its_changes_for_each_sweep(uri: str, tmp_path: Path) -> None:
    _build(tmp_path, "pushed")
    assert list(push(tmp_path, None, uri)) == [f"pushed: 5 runs created, 0 completed, 0 unchanged in {uri}"]
    with pytest.raises(UserError, match="no sweep 'other'"):
        list(push(tmp_path, "other", uri))
    with pytest.raises(UserError, match="there is no sweep in"):
        list(push(tmp_path / "nothing", None, uri))


def test_tracking_during_a_sweep_ends_up_to_date(uri: str, client: MlflowClient, tmp_path: Path) -> None:
    record = _build(tmp_path, "tracked", skipped={"mask_ratio=0.5,seed=1": EVALUATIONS})
    projection = BackgroundProjection(uri, tmp_path, record)
    projection.tick()
    _build(tmp_path, "tracked")
    assert projection.finish() == f"MLflow: experiment tracked is up to date in {uri}"
    assert {run.info.status for run in _runs(client, "tracked").values()} == {"FINISHED"}


def test_tracking_that_fails_or_hangs_costs_the_sweep_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = _build(tmp_path, "away")
    projection = BackgroundProjection("mlruns", tmp_path, record)
    projection.tick()
    assert projection.finish().startswith("MLflow at mlruns cannot be updated (expected sqlite:///FILE")
    assert BackgroundProjection("off", tmp_path, record).finish() == "MLflow: off"

    released = threading.Event()
    monkeypatch.setattr(background_projection, "FINISH_SECONDS", 0.05)
    monkeypatch.setattr(MlflowProjector, "project", lambda *_: released.wait(5))
    hanging = BackgroundProjection(f"sqlite:///{tmp_path}/x.db", tmp_path, record)
    hanging.tick()
    assert "has not answered yet" in hanging.finish()
    released.set()


def test_tracking_never_takes_the_lease_of_a_stage(tmp_path: Path) -> None:
    record = _build(tmp_path, "lease", skipped={"mask_ratio=0.5,seed=1": EVALUATIONS})
    run = RunDir(tmp_path, record.trials[-1].stages["pretrain"])
    trial_contents.stage_states(tmp_path, record.trials[-1])
    assert not (run.path / "lease.lock").exists()


def test_the_state_of_a_stage_is_read_from_its_files(tmp_path: Path) -> None:
    trial = "mask_ratio=0.5,seed=1"
    record = _build(tmp_path, "states", failed={(trial, "finetune"): "oom"}, skipped={trial: EVALUATIONS})
    states = trial_contents.stage_states(tmp_path, record.trials[-1])
    assert states == {
        "pretrain": "done",
        "probe": "done",
        "finetune": "failed",
        "finetune_probe": "pending",
        "generate": "pending",
    }
    write_json(RunDir(tmp_path, record.trials[-1].stages["finetune"]).path / "result.json", {})
    assert trial_contents.stage_states(tmp_path, record.trials[-1])["finetune"] == "done"
