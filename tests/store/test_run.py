"""Run directories: one owner at a time, the first result wins, and incomplete files are never read."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_trial
from umd_bench.store import Failure, RunDir, StageBusy, StageState, stage_state
from umd_bench.store.files import link_new, read_json, require_writable, write_atomic, write_json

SPEC = load_trial("umd").specs["pretrain"]
FAILURE = Failure(state="error", message="it broke", fingerprint="abc")


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    run = RunDir(tmp_path, SPEC.key)
    run.prepare(SPEC)
    return run


def test_the_config_is_read_back_with_the_same_key(run: RunDir) -> None:
    assert run.config() == SPEC
    assert run.config().key == run.key


def test_a_run_that_does_not_exist_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no run 'abc'"):
        RunDir(tmp_path, "abc").config()


def test_states_follow_the_contents_of_the_folder(run: RunDir) -> None:
    assert stage_state(run) is StageState.NEW
    with run.begin() as attempt:
        assert stage_state(run) is StageState.RUNNING
    assert stage_state(run) is StageState.INTERRUPTED
    with run.begin() as attempt:
        attempt.fail(FAILURE)
    assert stage_state(run) is StageState.FAILED
    assert run.failure() == FAILURE
    with run.begin() as attempt:
        attempt.finish({"metrics": {}})
    assert stage_state(run) is StageState.DONE


def test_a_stage_has_one_owner(run: RunDir) -> None:
    with run.begin(), pytest.raises(StageBusy):
        RunDir(run.root, run.key).begin()
    with run.begin() as second:
        assert second.number == 2


def own_and_wait(root: Path, key: str, ready: Connection) -> None:
    with RunDir(root, key).begin() as attempt:
        attempt.event("metrics", nimg=1)
        ready.send(True)
        signal.pause()


def test_ownership_ends_with_a_killed_process(run: RunDir) -> None:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=own_and_wait, args=(run.root, run.key, theirs))
    process.start()
    assert ours.poll(30)
    assert stage_state(run) is StageState.RUNNING
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert stage_state(run) is StageState.INTERRUPTED
    with run.begin() as attempt:
        assert attempt.number == 2


def test_the_first_result_wins(run: RunDir) -> None:
    with run.begin() as first:
        zombie = run.attempt_path(first.number)
    with run.begin() as second:
        assert second.finish({"metrics": {"loss": 1.0}})
    write_json(zombie / "result.json", {"metrics": {"loss": 2.0}})
    assert not link_new(zombie / "result.json", run.path / "result.json")
    result = run.result()
    assert result is not None
    assert result["metrics"]["loss"] == 1.0


def test_events_ignore_an_incomplete_last_line(run: RunDir) -> None:
    with run.begin() as attempt:
        attempt.event("metrics", nimg=128, loss=0.5)
        with (attempt.path / "events.jsonl").open("a") as file:
            file.write('{"event": "metr')
    assert [(e["event"], e["nimg"], e["attempt"]) for e in run.events()] == [("metrics", 128, 1)]


def test_an_event_with_a_nan_is_refused(run: RunDir) -> None:
    with run.begin() as attempt, pytest.raises(ValueError, match="Out of range float"):
        attempt.event("metrics", loss=float("nan"))


def test_checkpoint_folders_come_newest_attempt_first(run: RunDir) -> None:
    for _ in range(11):
        with run.begin():
            pass
    assert [path.parent.name for path in run.checkpoint_dirs()] == [f"attempt-{n}" for n in range(11, 0, -1)]


def test_an_atomic_write_leaves_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomic(path, b"old")

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full_disk)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_error_for_broken_json_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a\.json is not JSON"):
        read_json(tmp_path / "a.json")
    assert read_json(tmp_path / "b.json") is None


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"the results folder .* cannot be written"):
        require_writable(tmp_path / "file" / "results", "the results folder")


def test_json_does_not_depend_on_the_order_of_its_fields(tmp_path: Path) -> None:
    write_json(tmp_path / "a", {"b": 1, "a": [1.5]})
    write_json(tmp_path / "b", {"a": [1.5], "b": 1})
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert json.loads((tmp_path / "a").read_text()) == {"a": [1.5], "b": 1}
