"""Logs: a trial or a run is looked up by the beginning of its name, and its events are printed as sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from orchestration.scripted import fail_with, succeed
from orchestration.small import write_small

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Sweep, load_sweep
from umd_bench.orchestration.executors.jobs.records import Batch, Claim, JobRecords
from umd_bench.orchestration.graph import sweep_record
from umd_bench.orchestration.monitor import logs
from umd_bench.orchestration.monitor.logs import show_logs
from umd_bench.orchestration.monitor.lookup import lookup_stages
from umd_bench.store import RunDir, write_sweep


@pytest.fixture
def sweep(tmp_path: Path) -> Sweep:
    sweep = load_sweep(write_small(tmp_path))
    write_sweep(tmp_path, sweep_record(sweep))
    return sweep


def begun(root: Path, sweep: Sweep, trial: int = 0, stage: str = "pretrain") -> RunDir:
    spec = sweep.trials[trial].specs[stage]
    run = RunDir(root, spec.key)
    run.prepare(spec)
    return run


def lines(root: Path, name: str, count: int = 100) -> list[str]:
    out: list[str] = []
    show_logs(lookup_stages(root, name), out.append, lines=count, follow=False)
    return out


def test_a_run_is_looked_up_by_the_beginning_of_its_key_and_a_trial_by_its_name(tmp_path: Path, sweep: Sweep) -> None:
    run = begun(tmp_path, sweep)
    assert [stage.run.key for stage in lookup_stages(tmp_path, run.key[:6])] == [run.key]
    for name in ("mask_ratio=0.25,seed=0", "small/mask_ratio=0.25,seed=0"):
        assert [stage.name for stage in lookup_stages(tmp_path, name)] == list(sweep.trials[0].specs)
    with pytest.raises(UserError, match=r"2 trials begin with it, small/mask_ratio=0\.25,seed=0"):
        lookup_stages(tmp_path, "mask_ratio=0.25")
    with pytest.raises(UserError, match="no run and no trial"):
        lookup_stages(tmp_path, "nothing")


def test_a_trial_that_two_sweeps_share_is_found_once(tmp_path: Path, sweep: Sweep) -> None:
    write_sweep(tmp_path, sweep_record(sweep).model_copy(update={"name": "again"}))
    assert len(lookup_stages(tmp_path, "mask_ratio=0.25,seed=0")) == 5


def test_events_output_and_failures_are_printed_as_text(tmp_path: Path, sweep: Sweep) -> None:
    run = begun(tmp_path, sweep)
    with run.begin() as attempt:
        attempt.event("state", state="running", pid=12)
        attempt.event("metrics", nimg=15360, loss=0.123456, images_per_second=2345.6)
        attempt.event("progress", done=10, total=2000)
        attempt.event("warning", message="careful")
        (attempt.path / "worker.log").write_text("hello\nunfinished")
    fail_with("a\nlong story")(run, 0)
    text = "\n".join(lines(tmp_path, run.key))
    for part in (
        "pretrain #1 running pid 12",
        "pretrain #1 15,360 images, loss 0.1235, 2,346 images/s",
        "10 of 2,000",
        "warning: careful",
        "pretrain #1 worker.log | hello",
        "pretrain #2 failed (error): a",
        "pretrain #2 | long story",
    ):
        assert part in text
    assert "unfinished" not in text
    assert len(lines(tmp_path, run.key, 2)) == 2
    assert lines(tmp_path, "mask_ratio=0.25,seed=1")[0].endswith("has not started yet")


def test_following_continues_until_the_stage_is_done_and_repeats_nothing(tmp_path: Path, sweep: Sweep) -> None:
    run = begun(tmp_path, sweep)
    run.begin().__exit__(None, None, None)
    naps = 0

    def sleep(seconds: float) -> None:
        nonlocal naps
        naps += 1
        with (run.attempt_path(1) / "events.jsonl").open("a") as file:
            file.write(json.dumps({"event": "metrics", "time": 1, "nimg": naps}) + "\n")
        if naps == 3:
            succeed(run, 0)

    out: list[str] = []
    show_logs(lookup_stages(tmp_path, run.key), out.append, lines=5, follow=True, sleep=sleep)
    assert [line.split(" ", 4)[4] for line in out if "images" in line] == ["1 images", "2 images", "3 images"]
    assert out[-1].endswith("#2 done")


def test_only_the_output_of_the_stages_own_job_is_shown(tmp_path: Path, sweep: Sweep) -> None:
    run = begun(tmp_path, sweep)
    jobs = JobRecords(tmp_path)
    assert jobs.claim(Claim(run.key, 1, "batch", 1))
    jobs.folder("batch").mkdir(parents=True)
    jobs.confirm("batch", ["7_0", "7_1"])
    for name, text in (
        ("7_0_0_log.out", "a neighbour's\n"),
        ("7_1_0_log.err", "no such module\n"),
        ("7_10_0_log.err", "another\n"),
    ):
        (jobs.folder("batch") / name).write_text(text)
    assert lines(tmp_path, run.key) == ["pretrain job 7_1_0_log.err | no such module"]


@pytest.mark.parametrize(
    ("squeue", "expected"),
    [
        (
            "echo 'PENDING|Resources|10:00|'",
            "7_1 waits in the queue (Resources), to start about 10:00",
        ),
        ("echo 'PENDING|Dependency|N/A|'", "7_1 waits in the queue (Dependency)"),
        ("echo 'RUNNING|None|2026-11-25T10:00:00|node3'", "7_1 is RUNNING on node3"),
        ("exit 1", "7_1 was submitted, and its state is unknown"),
        ("exec sleep 60", "7_1 was submitted, and its state is unknown"),
    ],
)
def test_the_logs_say_why_a_stage_waits_for_its_job(
    tmp_path: Path, sweep: Sweep, squeue: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(tmp_path, sweep)
    jobs = JobRecords(tmp_path)
    assert jobs.claim(Claim(run.key, 1, "batch", 1))
    jobs.write_batch(
        Batch(
            name="batch", executor="slurm", host="here", created=0, tasks=(("0" * 16,), (run.key,)), root=str(tmp_path),
            data_root=str(tmp_path), stage="a:b", code="", minutes=5, signal_seconds=5, threads=1,
        )
    )  # fmt: skip
    assert lines(tmp_path, run.key) == [f"pretrain [{run.key}]: has not started yet; the scheduler has not confirmed its job"]
    jobs.confirm("batch", ["7_0", "7_1"])
    (tmp_path / "squeue").write_text(f"#!/bin/sh\n{squeue}\n")
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(logs, "QUEUE_SECONDS", 0.3)
    assert lines(tmp_path, run.key) == [f"pretrain [{run.key}]: has not started yet; its job {expected}"]
