"""The records of jobs: their fields on disk, which claim counts, and which end counts."""

from __future__ import annotations

import json
from pathlib import Path

from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.jobs.records import Batch, Claim, JobRecords

ON_DISK = {
    "name": "umd-1",
    "executor": "slurm",
    "host": "login",
    "created": 1.5,
    "tasks": [["aa", "bb"], ["cc"]],
    "root": "/results",
    "data_root": "/data",
    "stage": "package.module:function",
    "code": "/results/jobs/code/0",
    "minutes": 60,
    "signal_seconds": 90,
    "threads": 4,
    "devices": 1,
    "side_by_side": 2,
    "after": "17",
}


def test_a_batch_keeps_its_fields_on_disk(tmp_path: Path) -> None:
    records = JobRecords(tmp_path)
    path = records.folder("umd-1") / "batch.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(ON_DISK))
    batch = records.read_batch("umd-1")
    assert batch is not None
    assert batch.entry_point == "package.module:function"
    path.unlink()
    records.write_batch(batch)
    assert json.loads(path.read_text()) == ON_DISK
    assert Batch.model_validate({**ON_DISK}) == batch


def test_the_first_of_two_equal_claims_holds_and_the_claim_with_the_highest_number_counts(tmp_path: Path) -> None:
    records = JobRecords(tmp_path)
    assert records.newest_claim("aa") is None
    assert records.claim(Claim("aa", 9, "first", 0))
    assert not records.claim(Claim("aa", 9, "second", 0))
    assert records.claim(Claim("aa", 10, "third", 1))
    assert records.newest_claim("aa") == Claim("aa", 10, "third", 1)
    assert records.job_id(Claim("aa", 10, "third", 1)) is None
    records.confirm("third", ["5_0", "5_1"])
    records.confirm("third", ["6_0", "6_1"])
    assert records.job_id(Claim("aa", 10, "third", 1)) == "5_1"


def test_the_first_recorded_end_counts_and_closes_the_claim(tmp_path: Path) -> None:
    records = JobRecords(tmp_path)
    claim = Claim("aa", 1, "batch", 0)
    assert records.claim(claim)
    assert list(records.open_claims(["aa", "bb"])) == [claim]
    records.record_end("batch", "aa", EndReason.TIMEOUT, "job 5 ended (TIMEOUT)")
    records.record_end("batch", "aa", None)
    assert records.end_of("batch", "aa") == (EndReason.TIMEOUT, "job 5 ended (TIMEOUT)")
    assert records.ended_keys("batch") == {"aa"}
    assert records.open_claim("aa") is None
    stored = json.loads((records.folder("batch") / "ended" / "aa.json").read_text())
    assert stored == {"kind": "timeout", "message": "job 5 ended (TIMEOUT)"}


def test_the_incomplete_last_line_of_a_killed_job_is_left_out(tmp_path: Path) -> None:
    records = JobRecords(tmp_path)
    records.note_job_run("batch", 0, begun=True)
    records.note_job_run("batch", 0, end=EndReason.PREEMPTED)
    with (records.folder("batch") / "lives" / "0.jsonl").open("a") as file:
        file.write('{"time": 1')
    assert [{**line, "time": 0} for line in records.job_runs("batch", 0)] == [
        {"time": 0, "begun": True},
        {"time": 0, "end": "preempted"},
    ]
