"""A job's own view of Slurm, from its environment: which task and which rank this process is, and how the job is requeued."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable

from umd_bench.orchestration.commands import run_command
from umd_bench.orchestration.executors.contract import MAX_ATTEMPTS, EndReason
from umd_bench.orchestration.executors.jobs.queues.slurm_states import array_ids
from umd_bench.orchestration.executors.jobs.records import Batch, JobRecords
from umd_bench.orchestration.stage_process.entry_point import RankLaunch

EARLY_SECONDS = 60.0  # Slurm may send the warning of the time limit this much earlier than requested
ANSWER_SECONDS = 60.0  # for scontrol
REQUEUE_SECONDS = 60.0  # for Slurm to end a job that it has agreed to requeue
POLL_END_SECONDS = 0.1


def task_and_ids(batch: Batch) -> tuple[int, list[str]]:
    """Which task of the batch this job is, and the job ids of all tasks."""
    if len(batch.tasks) == 1:
        return 0, [os.environ["SLURM_JOB_ID"]]
    return int(os.environ["SLURM_ARRAY_TASK_ID"]), array_ids(os.environ["SLURM_ARRAY_JOB_ID"], len(batch.tasks))


def rank(batch: Batch) -> int:
    """The rank of this process in a job with one process per device; 0 in any other job."""
    return int(os.environ["SLURM_PROCID"]) if batch.devices > 1 else 0


def rank_on_node() -> int:
    """The number of this process among the job's processes on this node."""
    return int(os.environ["SLURM_LOCALID"])


def job_run() -> str:
    """A name for this run of this job. An earlier run may still continue, and its ranks must not connect to this run's."""
    return f"{os.environ['SLURM_JOB_ID']}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def rank_launch(records: JobRecords, batch: Batch) -> RankLaunch:
    """How rank 0, which is this process, meets the processes that Slurm started for the other devices."""
    return RankLaunch(
        os.environ["SLURMD_NODENAME"], lambda address: records.announce_rank_0(batch.name, job_run(), address), batch.devices
    )


def reason_of_signal(batch: Batch, number: int, seconds: float) -> EndReason | None:
    """Why Slurm sent this signal after ``seconds``. None for SIGTERM, which Slurm sends for any reason."""
    if number != signal.SIGUSR2:
        return None
    return EndReason.TIMEOUT if seconds >= batch.minutes * 60 - batch.signal_seconds - EARLY_SECONDS else EndReason.PREEMPTED


def requeue(records: JobRecords, batch: Batch, task: int, reason: EndReason, terminated: Callable[[], bool]) -> None:
    """Have Slurm run this job again, and wait until Slurm ends this run.

    Does nothing if all stages of the job were requested to stop, or if the job was ended for this reason
    :data:`MAX_ATTEMPTS` times. ``terminated`` says whether SIGTERM has come.
    """
    ends = Counter(line.get("end") for line in records.job_runs(batch.name, task))
    if ends[reason] >= MAX_ATTEMPTS[reason] or all(records.stop_requested(batch.name, key) for key in batch.tasks[task]):
        return
    job = os.environ["SLURM_JOB_ID"]
    answered = run_command("scontrol", "requeue", job, seconds=ANSWER_SECONDS)
    if answered is None or answered.returncode != 0:
        why = f"no answer within {ANSWER_SECONDS:.0f} s" if answered is None else answered.stderr.strip()
        print(
            f"job {job} could not be requeued ({why}); the next command on the sweep submits its stages again", file=sys.stderr
        )
        return
    until = time.monotonic() + REQUEUE_SECONDS
    while not terminated() and time.monotonic() < until:
        time.sleep(POLL_END_SECONDS)  # if this process ended first, Slurm could take its exit status for the job's
