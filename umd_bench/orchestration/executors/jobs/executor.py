"""Stages as jobs that outlive the command: one executor over Slurm and over submitit's local jobs.

The records of a job are in its batch's folder (:mod:`~umd_bench.orchestration.executors.jobs.records`), and the results of its
stages are in their run directories. The executor does not read submitit's pickles. It queries the cluster's scheduler only for
jobs that have not recorded their end. A job counts as over after two answers that say so.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterable
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.executors.contract import Ended, EndReason
from umd_bench.orchestration.executors.jobs.job_end import JobWatch, why_ended
from umd_bench.orchestration.executors.jobs.queues.contract import JobStatus, Queue
from umd_bench.orchestration.executors.jobs.records import Batch, Claim, JobRecords
from umd_bench.orchestration.executors.jobs.submission import Submitter
from umd_bench.orchestration.stage_process.entry_point import RUN_STAGE
from umd_bench.store import RunDir

POLL_RECORDS_SECONDS = 0.2  # between two reads of the batches' folders in one call of poll


class SubmititExecutor:
    """Runs stages, each on at most ``devices`` devices, as jobs of ``queue`` that request the resources in ``cluster``."""

    def __init__(
        self,
        root: Path,
        data_root: Path,
        queue: Queue,
        cluster: ClusterConfig,
        *,
        threads: int,
        devices: int = 1,
        entry_point: str = RUN_STAGE,
    ) -> None:
        self.name = queue.name
        self.slots = cluster.max_submitted if queue.capacity is None else queue.capacity * cluster.pack
        self.root = root.resolve()
        self._queue, self._cluster, self._devices = queue, cluster, devices
        self._records = JobRecords(self.root)
        self._submitter = Submitter(
            self._records, queue, cluster, data_root=data_root.resolve(), threads=threads, entry_point=entry_point
        )
        self._watch = JobWatch(self._records)
        self._waiting: dict[str, str | None] = {}  # stages to submit -> the stage whose job must succeed first
        self._live: dict[str, Claim] = {}
        self._batches: dict[str, Batch] = {}
        self._status_at = float("-inf")  # when the scheduler last gave the jobs' status
        self._cancelled_as_silent: set[str] = set()  # ids of jobs that this executor cancelled because they were silent
        self._ended: list[Ended] = []
        self._stopping = False

    def submit(self, key: str, *, after: str | None = None) -> None:
        """Submit the stage at the next :meth:`poll`, with all others; ``after`` is a stage whose job must succeed first."""
        self._waiting[key] = after

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """Follow the jobs of these stages that are not recorded as over, if they are in this executor's queue."""
        return {claim.key for claim in self._records.open_claims(keys) if self._follow(claim)}

    def poll(self, timeout: float) -> list[Ended]:
        """Submit the waiting stages, then check until a stage has ended."""
        deadline = time.monotonic() + timeout
        while True:
            self.flush()
            self._read_records()
            self._query_scheduler()
            ended, self._ended = self._ended, []
            if ended or time.monotonic() >= deadline or not (self._live or self._waiting):
                return ended
            time.sleep(max(0.0, min(POLL_RECORDS_SECONDS, deadline - time.monotonic())))

    def cancel(self, key: str) -> None:
        """Withdraw a waiting stage, or request a submitted one to stop; its job is cancelled unless it has other stages."""
        if key in self._waiting:
            del self._waiting[key]
            self._ended.append(Ended(key, EndReason.CANCELLED, "cancelled before it was submitted"))
        claim = self._live.get(key)
        if claim is None:
            return
        self._records.request_stop(claim.batch, key)
        unfinished = set(self._stages_of(claim)) - self._records.ended_keys(claim.batch)
        job = self._records.job_id(claim)
        if job is not None and unfinished <= {key}:
            self._queue.cancel([job])

    def stop(self) -> None:
        """Cancel waiting jobs; request running ones to save their state and end without being requeued."""
        self._stopping = True
        for key in list(self._waiting):
            self.cancel(key)
        self._request_stop_of_all()
        self._queue.cancel(self._live_jobs(), pending_only=True)

    def detach(self) -> None:
        """Forget the jobs. They continue, and the next command adopts them."""
        self._waiting.clear()
        self._live.clear()
        self._ended.clear()

    def close(self) -> None:
        """Cancel every job that is not over."""
        self._request_stop_of_all()
        self._queue.cancel(self._live_jobs())
        self.detach()

    def flush(self) -> bool:
        """Submit the waiting stages for which the queue has room; returns whether stages still wait."""
        if self._stopping or not self._waiting:
            return False
        room = len(self._waiting)
        if self._queue.capacity is not None:
            jobs = {(claim.batch, claim.task) for claim in self._live.values()}
            room = (self._queue.capacity - len(jobs)) * self._cluster.pack
        groups: dict[tuple[str | None, int], list[str]] = {}
        for key in list(self._waiting)[: max(0, room)]:
            claim = self._records.open_claim(key)
            if claim is not None and self._follow(claim):  # another command has submitted it
                del self._waiting[key]
            else:
                groups.setdefault((self._waiting[key], self._devices_of(key)), []).append(key)
        for (after, devices), keys in groups.items():
            size = self._submitter.pack(devices) * self._queue.array_limit()
            for start in range(0, len(keys), size):
                self._submit_together(keys[start : start + size], after, devices)
        return bool(self._waiting)

    def unconfirmed(self) -> bool:
        """Whether some batch was submitted and the scheduler did not answer."""
        return self._submitter.unconfirmed()

    # ---- submitting

    def _devices_of(self, key: str) -> int:
        return 1 if self._devices == 1 else RunDir(self.root, key).config().devices

    def _submit_together(self, keys: list[str], after: str | None, devices: int) -> None:
        parent = None
        if after is not None and (claim := self._records.open_claim(after)) is not None:
            parent = self._records.job_id(claim)
            if parent is None:  # its own submission is not confirmed yet: try again at the next poll
                return
        batch = self._submitter.write_batch(keys, devices, parent)
        for index, task in enumerate(batch.tasks):
            for key in task:
                newest = self._records.newest_claim(key)
                claim = Claim(key, newest.number + 1 if newest else 1, batch.name, index)
                if not self._records.claim(claim):
                    other = self._records.newest_claim(key)
                    if other is None or not self._follow(other):
                        continue  # it has ended, or is in another queue: try again at the next poll
                else:
                    self._live[key] = claim
                self._waiting.pop(key, None)
        self._batches[batch.name] = batch
        if any(claim.batch == batch.name for claim in self._live.values()):
            self._submit_batch(batch)

    def _submit_batch(self, batch: Batch) -> None:
        try:
            self._submitter.submit(batch)
        except UserError as error:
            for key in [key for key, claim in self._live.items() if claim.batch == batch.name]:
                self._records.record_end(batch.name, key, EndReason.CANCELLED, f"refused: {error}")
                del self._live[key]
            raise

    # ---- following

    def _follow(self, claim: Claim) -> bool:
        """Follow a job that another command submitted; False if it is over or this queue cannot know of it."""
        batch = self._batches.get(claim.batch) or self._records.read_batch(claim.batch)
        if batch is None or batch.executor != self.name or self._records.end_of(claim.batch, claim.key) is not None:
            return False
        if self._queue.capacity is not None and batch.host != platform.node():  # processes of another machine
            return False
        self._batches[batch.name] = batch
        self._live[claim.key] = claim
        if self._records.job_ids(batch.name) is None:
            self._submitter.expect(batch)
        return True

    def _read_records(self) -> None:
        """End the stages whose job is recorded as over."""
        for name in self._live_batches():
            for key in self._records.ended_keys(name):
                claim = self._live.get(key)
                if claim is not None and claim.batch == name:
                    self._add_end(key)

    def _query_scheduler(self) -> None:
        """Confirm or repeat unconfirmed submissions, and end the stages whose job is over without a record."""
        now = time.monotonic()
        if not self._live or now - self._status_at < self._queue.status_seconds:
            return
        self._status_at = now
        for batch in self._submitter.check_unconfirmed():
            if not self._stopping:
                self._submit_batch(batch)
        ids = {name: self._records.job_ids(name) for name in self._live_batches()}
        jobs = {key: of_batch[claim.task] for key, claim in self._live.items() if (of_batch := ids[claim.batch]) is not None}
        statuses = self._queue.status(sorted(set(jobs.values())))
        for key, job in jobs.items():
            if (status := statuses.get(job)) is not None:
                self._apply(key, job, status)

    def _apply(self, key: str, job: str, status: JobStatus) -> None:
        """End the stage if its job is over; cancel the job if it is silent (:meth:`JobWatch.is_silent`)."""
        claim = self._live[key]
        if self._watch.is_over(key, status):
            if status.reason is EndReason.NODE_FAIL and status.node:
                self._submitter.avoid.add(status.node)
            gives_no_reasons = self._queue.capacity is not None
            reason, message = why_ended(
                self._records,
                self._batches[claim.batch],
                claim,
                status,
                was_silent=job in self._cancelled_as_silent,
                limit_seconds=self._cluster.time * 60 if gives_no_reasons else None,
            )
            self._records.record_end(claim.batch, key, reason, message)
            self._add_end(key)
        elif self._watch.is_silent(claim, self._stages_of(claim), status):
            self._cancelled_as_silent.add(job)
            self._queue.cancel([job])

    def _add_end(self, key: str) -> None:
        """Return the stage from the next poll, with the reason and message in its job's record."""
        claim = self._live.pop(key)
        self._watch.forget(key)
        reason, message = self._records.end_of(claim.batch, key) or (None, "")
        self._ended.append(Ended(key, reason, message))

    def _stages_of(self, claim: Claim) -> tuple[str, ...]:
        """All stages of the claim's job."""
        return self._batches[claim.batch].tasks[claim.task]

    def _live_batches(self) -> set[str]:
        return {claim.batch for claim in self._live.values()}

    def _live_jobs(self) -> list[str]:
        """Ids of the jobs of live stages, as far as their submission is confirmed."""
        return sorted({job for claim in self._live.values() if (job := self._records.job_id(claim)) is not None})

    def _request_stop_of_all(self) -> None:
        for name in self._live_batches():
            self._records.request_stop(name)
