"""Whether a job is over, and why it ended: from the scheduler's answers and the job's own records."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.jobs.queues.contract import JobStatus
from umd_bench.orchestration.executors.jobs.records import Batch, Claim, JobRecords
from umd_bench.store import RunDir, parent_done

# A job counts as dead if the scheduler calls it running, but no process has owned any of its stages for this long.
SILENT_SECONDS = 300.0


@dataclass
class JobWatch:
    """For each stage: since when the scheduler has called its job over, and since when the job's stages have had no owner.

    Times are ``time.monotonic``, by the stage's key.
    """

    records: JobRecords
    _over_since: dict[str, float] = field(default_factory=dict)
    _silent_since: dict[str, float] = field(default_factory=dict)

    def is_over(self, key: str, status: JobStatus) -> bool:
        """Whether the scheduler has called the job over twice and no process owns the stage."""
        if not status.over:
            self._over_since.pop(key, None)
            return False
        now = time.monotonic()
        return now > self._over_since.setdefault(key, now) and not self._is_owned(key)

    def is_silent(self, claim: Claim, keys: Sequence[str], status: JobStatus) -> bool:
        """Whether no process has owned any stage of a running job (``keys``) for more than ``SILENT_SECONDS``.

        Then the job's process has begun and died, and the scheduler has not noticed.
        """
        if status.over:
            return False
        begun = status.running and any("begun" in line for line in self.records.job_runs(claim.batch, claim.task))
        if not begun or any(self._is_owned(key) for key in keys):
            self._silent_since.pop(claim.key, None)
            return False
        now = time.monotonic()
        return now - self._silent_since.setdefault(claim.key, now) > SILENT_SECONDS

    def forget(self, key: str) -> None:
        """Drop the times of a stage that has ended."""
        self._over_since.pop(key, None)
        self._silent_since.pop(key, None)

    def _is_owned(self, key: str) -> bool:
        return RunDir(self.records.root, key).is_owned()


def why_ended(
    records: JobRecords, batch: Batch, claim: Claim, status: JobStatus, *, was_silent: bool, limit_seconds: float | None
) -> tuple[EndReason, str]:
    """The reason why a job that is over ended, and a message for people.

    The scheduler's reason comes first, then the one that the job recorded. Without either, the reason is ``died``, or
    ``timeout`` if the job ran for ``limit_seconds``.

    Args:
        was_silent: The executor itself cancelled the job, since it was silent.
        limit_seconds: The time limit, if the scheduler does not report timeouts; otherwise None.
    """
    runs = records.job_runs(claim.batch, claim.task)
    job = records.job_id(claim)
    where = ("its job" if job is None else f"job {job}") + (f" on {status.node}" if status.node else "")
    if status.reason is EndReason.CANCELLED and not runs and _is_orphan(records, batch, claim):
        return EndReason.ORPHANED, f"Slurm cancelled {where}, since its parent's job left no result"
    if status.reason is EndReason.CANCELLED and was_silent:
        return EndReason.DIED, f"{where} was cancelled: it was in state RUNNING, but no process worked on its stage"
    reason = status.reason or _recorded_reason(runs, limit_seconds)
    return reason, f"{where} ended ({status.state})"


def _recorded_reason(runs: list[dict[str, Any]], limit_seconds: float | None) -> EndReason:
    recorded = next((line["end"] for line in reversed(runs) if line.get("end")), None)
    if recorded:
        return EndReason(recorded)
    begun = next((line["time"] for line in reversed(runs) if line.get("begun")), None)
    late = begun is not None and limit_seconds is not None and time.time() - begun >= limit_seconds
    return EndReason.TIMEOUT if late else EndReason.DIED


def _is_orphan(records: JobRecords, batch: Batch, claim: Claim) -> bool:
    """Whether Slurm cancelled the job because the job that it waited for failed.

    A snapshot that the stage reads may exist even so, if its training was lost after it wrote the snapshot.
    """
    run = RunDir(records.root, claim.key)
    if batch.after is None:
        return not parent_done(run)
    parent = run.config().parent_key
    return parent is not None and RunDir(records.root, parent).result() is None
