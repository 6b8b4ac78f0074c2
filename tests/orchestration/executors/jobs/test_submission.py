"""A batch runs the code of the command that submits it, whichever command recorded it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.executors.jobs import submission
from umd_bench.orchestration.executors.jobs.queues.contract import Queue
from umd_bench.orchestration.executors.jobs.records import Batch, JobRecords
from umd_bench.orchestration.executors.jobs.submission import Submitter

KEY, ENTRY_POINT = "0123456789abcdef", "package.module:run"


class AcceptingQueue:
    """Accepts every batch, and remembers the command of its jobs."""

    name = "slurm"

    def submit(self, batch: Batch, folder: Path, python: str, *, after: str | None, avoid: Iterable[str]) -> list[str]:
        self.command = python
        return ["1"]


@pytest.fixture
def submitter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submitter:
    monkeypatch.setattr(submission, "freeze_code", lambda folder: folder / "new")
    queue: Queue = AcceptingQueue()  # type: ignore[assignment]
    return Submitter(JobRecords(tmp_path), queue, ClusterConfig(), data_root=tmp_path, threads=1, entry_point=ENTRY_POINT)


def test_a_batch_that_another_version_recorded_runs_this_versions_code(tmp_path: Path, submitter: Submitter) -> None:
    records, code = JobRecords(tmp_path), str(tmp_path / "jobs" / "code" / "new")
    batch = submitter.write_batch([KEY], devices=1, after=None)
    assert (batch.code, batch.entry_point) == (code, ENTRY_POINT)
    records.write_batch(batch.model_copy(update={"code": "old", "entry_point": "gone.module:run"}))
    recorded = records.read_batch(batch.name)
    assert recorded is not None
    submitter.submit(recorded)
    assert records.read_batch(batch.name) == batch
    assert f"PYTHONPATH={code}" in submitter._queue.command  # type: ignore[attr-defined]
    assert records.job_ids(batch.name) == ["1"]
