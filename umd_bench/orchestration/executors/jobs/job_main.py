"""The program that a job runs: one task of a batch, its stages one after another.

``python -m ...job_main BATCH_FOLDER`` is the job. If the batch runs several stages at a time, the job starts
``job_main BATCH_FOLDER TASK KEY`` for each (:mod:`~umd_bench.orchestration.executors.jobs.packed_job`).

A signal only sets a flag. The stage reads the flag between steps, saves its state and returns. If the signal was Slurm's
warning (SIGUSR2), the job then has Slurm requeue it, so that it continues even if no command runs. After any other signal, and
in a local job, the job ends, and a running command decides whether its stages run again. The exit status is 0 only if all
stages of the task have their result, since jobs that wait for this one must not begin before.
"""

from __future__ import annotations

import os
import platform
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.jobs import slurm_job
from umd_bench.orchestration.executors.jobs.packed_job import WARNINGS, run_packed
from umd_bench.orchestration.executors.jobs.records import Batch, JobRecords
from umd_bench.orchestration.stage_process.entry_point import Outcome, load_entry_point
from umd_bench.store import RunDir, parent_done

POLL_LEASE_SECONDS = 2.0  # while an earlier run of this job still owns the stage
POLL_REQUESTS_SECONDS = 1.0  # for requests to stop
POLL_ADDRESS_SECONDS = 0.2  # for the address of rank 0


class StopFlag:
    """Whether the job's stages must stop: because of a signal, or of a request in the batch's folder."""

    def __init__(self, records: JobRecords, batch: Batch) -> None:
        self.first: int | None = None  # the first signal
        self.terminated = False  # whether SIGTERM has come
        self.parent: int | None = None  # for a packed stage, the job's process: if that ends, the stage stops
        self._records, self._batch, self._read_at = records, batch, 0.0
        self._requested: set[str] = set()
        for number in WARNINGS:
            signal.signal(number, self._receive)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's Ctrl-C is meant for the command

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self.first = self.first or number
        self.terminated = self.terminated or number == signal.SIGTERM

    def requested(self, key: str, *, every: float = 0.0) -> bool:
        """Whether the stage was requested to stop; reads the folder at most once in ``every`` seconds."""
        now = time.monotonic()
        if key not in self._requested and now - self._read_at >= every:
            self._read_at = now
            if self._records.stop_requested(self._batch.name, key):
                self._requested.add(key)
        return key in self._requested

    def is_set(self, key: str) -> bool:
        """Whether the stage must stop now; called between steps."""
        abandoned = self.parent is not None and os.getppid() != self.parent
        return self.first is not None or abandoned or self.requested(key, every=POLL_REQUESTS_SECONDS)


def main(folder: str, packed: Sequence[str] = ()) -> int:
    """Run this process's task of the batch, or the one stage ``packed`` (number of the task, key). Returns the exit status."""
    path = Path(folder)
    records = JobRecords(path.parent.parent)
    batch = records.read_batch(path.name)
    if batch is None:
        print(f"there is no {path / 'batch.json'}: was the results folder removed while this job waited?", file=sys.stderr)
        return 1
    begun = time.time()
    stop = StopFlag(records, batch)
    if packed:
        stop.parent = os.getppid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WARNINGS)
        number, key = packed
        complete = _run_stage(records, batch, int(number), key, stop)
        for warning in WARNINGS:  # Python resets its handlers at exit, and a second signal must not kill it then
            signal.signal(warning, signal.SIG_IGN)
        return 0 if complete else 1
    on_slurm = batch.executor == "slurm"
    if on_slurm and slurm_job.rank(batch):
        return _follow_rank_0(records, batch, stop)
    task, ids = slurm_job.task_and_ids(batch) if on_slurm else _local_task_and_ids()
    records.confirm(batch.name, ids)
    records.note_job_run(
        batch.name, task, begun=True, host=platform.node(), node=os.environ.get("SLURMD_NODENAME"), pid=os.getpid()
    )
    keys = batch.tasks[task]
    if batch.side_by_side > 1 and len(keys) > 1:
        results = run_packed(records, batch, task, keys, stop)
    else:
        results = [_run_stage(records, batch, task, key, stop) for key in keys]  # the others run even if one fails
    if on_slurm and batch.devices > 1:
        records.announce_rank_0(batch.name, slurm_job.job_run(), "")  # releases ranks that wait for a stage that never began
    complete = all(results)
    if complete or stop.first is None:
        return 0 if complete else 1
    reason = slurm_job.reason_of_signal(batch, stop.first, time.time() - begun)
    records.note_job_run(batch.name, task, end=reason)
    if reason is not None and on_slurm:
        slurm_job.requeue(records, batch, task, reason, lambda: stop.terminated)
    return 1


def _local_task_and_ids() -> tuple[int, list[str]]:
    from umd_bench.orchestration.executors.jobs.queues.local import process_id

    return 0, [process_id(os.getppid())]


def _follow_rank_0(records: JobRecords, batch: Batch, stop: StopFlag) -> int:
    """Wait for the address of rank 0, then run as another rank of its stage. Returns the exit status."""
    from umd_bench.engine.training.parallel import RankLost
    from umd_bench.orchestration.stage_process.ranks import follow_stage

    while (address := records.rank_0_address(batch.name, slurm_job.job_run())) is None:
        if stop.terminated:
            return 1
        time.sleep(POLL_ADDRESS_SECONDS)
    if not address:
        return 0
    try:
        follow_stage(address, slurm_job.rank(batch), local=slurm_job.rank_on_node(), stop=lambda: stop.first is not None)
    except RankLost:
        traceback.print_exc()
        return 1
    except Exception:  # Rank 0 has its report. After a bad exit here, Slurm would kill rank 0 before it records the failure.
        traceback.print_exc()
    return 0


def _run_stage(records: JobRecords, batch: Batch, task: int, key: str, stop: StopFlag) -> bool:
    """Run one stage of the task; returns whether it has its result now."""
    run = RunDir(Path(batch.root), key)
    claim = records.newest_claim(key)
    if claim is None or (claim.batch, claim.task) != (batch.name, task):
        print(f"stage {key} was submitted again; it is left to the newer job", file=sys.stderr)
        return run.result() is not None
    if records.end_of(batch.name, key) is not None:  # recorded by an earlier run of this job
        return run.result() is not None
    if stop.requested(key):
        records.record_end(batch.name, key, EndReason.CANCELLED, "cancelled before it began")
        return False
    if not parent_done(run):
        records.record_end(batch.name, key, EndReason.ORPHANED, "its parent left no result")
        return False
    outcome = Outcome.BUSY
    rank_launch = slurm_job.rank_launch(records, batch) if batch.executor == "slurm" else None
    while outcome is Outcome.BUSY and not stop.is_set(key):
        try:
            outcome = load_entry_point(batch.entry_point)(
                run.root, key, Path(batch.data_root), stop=lambda: stop.is_set(key), rank_launch=rank_launch
            )
        except Exception as error:
            traceback.print_exc()
            records.record_end(batch.name, key, EndReason.DIED, f"{type(error).__name__}: {error}")
            return False
        if outcome is Outcome.BUSY:  # an earlier run may continue for a while on a node that Slurm counts as lost
            time.sleep(POLL_LEASE_SECONDS)
    if outcome not in (Outcome.STOPPED, Outcome.BUSY):
        records.record_end(batch.name, key, None)
    elif stop.requested(key):
        records.record_end(batch.name, key, EndReason.CANCELLED, "cancelled while it ran; its state is saved")
    return run.result() is not None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:4] if len(sys.argv) == 4 else ()))
