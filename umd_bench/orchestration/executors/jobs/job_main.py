"""What a job is: one task of a batch, which runs its stages one after another. Started as a module, ``job BATCH_FOLDER``;
where several stages run at a time it starts ``job BATCH_FOLDER TASK KEY`` for each.

A signal only sets a flag. The stage looks at it between steps, saves its state and comes back; then the job is requeued by
itself where the scheduler can do that, so that nobody need be watching, and otherwise it ends and is submitted again. What
happened stands in the run directory; the job's own word about its end is a file in the batch's folder. Its exit status is 0
only when all of its stages have their result, which is what jobs submitted behind it wait for.
"""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from umd_bench.orchestration.executors.contract import MAX_ATTEMPTS, EndReason
from umd_bench.orchestration.executors.jobs.packed_job import WARNINGS, run_side_by_side
from umd_bench.orchestration.executors.jobs.records import Batch, JobRecords
from umd_bench.orchestration.stage_process.entry_point import Outcome, RankLaunch, load_entry_point
from umd_bench.store import RunDir, parent_done

BUSY_SECONDS = 2.0  # between two looks at a stage that another life of this job still owns
ASK_SECONDS = 1.0  # between two looks for a request to stop
EARLY_SECONDS = 60.0  # Slurm may warn of the time limit this much before it was asked to
MEET_SECONDS = 0.2  # between two looks for what rank 0 announces
REQUEUE_SECONDS = 60.0  # how long a requeued job waits for its end


class Warned:
    """The flag that signals set, and requests to stop left in the batch's folder."""

    def __init__(self, records: JobRecords, batch: Batch) -> None:
        self.signal: int | None = None  # the first
        self.ended = False  # by the scheduler's SIGTERM
        self._records, self._batch, self._asked_at = records, batch, 0.0
        self._asked: set[str] = set()
        self.parent: int | None = None  # whose end is a warning too
        for number in WARNINGS:
            signal.signal(number, self._hear)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's Ctrl-C is meant for the command

    def _hear(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or number
        self.ended = self.ended or number == signal.SIGTERM

    def asked(self, key: str, *, between: float = 0.0) -> bool:
        """Whether somebody asked for the stage to stop; looks at the folder unless it did so ``between`` seconds ago."""
        now = time.monotonic()
        if key not in self._asked and now - self._asked_at >= between:
            self._asked_at = now
            if self._records.stop_requested(self._batch.name, key):
                self._asked.add(key)
        return key in self._asked

    def stop(self, key: str) -> bool:
        """Asked between steps."""
        alone = self.parent is not None and os.getppid() != self.parent
        return self.signal is not None or alone or self.asked(key, between=ASK_SECONDS)


def main(folder: str, one: Sequence[str] = ()) -> int:
    """Run the task of this process, or ``one`` stage of it (the task's number, the key); the exit status."""
    path = Path(folder)
    records = JobRecords(path.parent.parent)
    batch = records.read_batch(path.name)
    if batch is None:
        print(f"{folder} holds no batch.json: nothing says what this job is", file=sys.stderr)
        return 1
    begun = time.time()
    warned = Warned(records, batch)
    if one:
        warned.parent = os.getppid()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, WARNINGS)
        number, key = one
        complete = _run(records, batch, int(number), key, warned)
        for signal_number in WARNINGS:  # of which Python makes deadly ones again while it ends: one may come twice
            signal.signal(signal_number, signal.SIG_IGN)
        return 0 if complete else 1
    if _rank(batch):
        return _follow(records, batch, warned)
    task, ids = _identity(batch)
    records.confirm(batch.name, ids)
    records.note_job_run(
        batch.name, task, begun=True, host=platform.node(), node=os.environ.get("SLURMD_NODENAME"), pid=os.getpid()
    )
    keys = batch.tasks[task]
    if batch.side_by_side > 1 and len(keys) > 1:
        results = run_side_by_side(records, batch, task, keys, warned)
    else:
        results = [_run(records, batch, task, key, warned) for key in keys]  # one that fails stops no other
    if batch.executor == "slurm" and batch.devices > 1:
        records.announce_rank_0(batch.name, _life(), "")  # where the stage never came to its devices, nobody need wait
    complete = all(results)
    if complete or warned.signal is None:
        return 0 if complete else 1
    kind = _why(batch, warned.signal, time.time() - begun)
    records.note_job_run(batch.name, task, end=kind)
    if kind is not None and batch.executor == "slurm":
        _requeue(records, batch, task, kind, warned)
    return 1


def _identity(batch: Batch) -> tuple[int, list[str]]:
    """Which task of the batch this process is, and the scheduler's ids of all tasks."""
    if batch.executor != "slurm":
        from umd_bench.orchestration.executors.jobs.local import process_id

        return 0, [process_id(os.getppid())]
    if len(batch.tasks) == 1:
        return 0, [os.environ["SLURM_JOB_ID"]]
    array = os.environ["SLURM_ARRAY_JOB_ID"]
    return int(os.environ["SLURM_ARRAY_TASK_ID"]), [f"{array}_{i}" for i in range(len(batch.tasks))]


def _rank(batch: Batch) -> int:
    """Which device of the stage this process is for; it is rank 0's job that is recorded, and the others only follow."""
    return int(os.environ["SLURM_PROCID"]) if batch.executor == "slurm" and batch.devices > 1 else 0


def _life() -> str:
    """This life of this job: an earlier one may go on beside it for a while, and its ranks are not ours."""
    return f"{os.environ['SLURM_JOB_ID']}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def _rank_launch(records: JobRecords, batch: Batch) -> RankLaunch | None:
    """The processes that Slurm started beside this one, if any; elsewhere a stage on several devices starts its own."""
    if batch.executor != "slurm":
        return None
    return RankLaunch(
        os.environ["SLURMD_NODENAME"], lambda address: records.announce_rank_0(batch.name, _life(), address), batch.devices
    )


def _follow(records: JobRecords, batch: Batch, warned: Warned) -> int:
    """Wait for rank 0 to have the stage, for as long as the job lives, and follow it; the exit status."""
    from umd_bench.engine.training.parallel import RankLost
    from umd_bench.orchestration.stage_process.ranks import follow_stage

    while (address := records.rank_0_address(batch.name, _life())) is None:
        if warned.ended:
            return 1
        time.sleep(MEET_SECONDS)
    if not address:
        return 0
    try:
        follow_stage(address, _rank(batch), local=int(os.environ["SLURM_LOCALID"]), stop=lambda: warned.signal is not None)
    except RankLost:
        traceback.print_exc()
        return 1
    except Exception:  # rank 0 was told; Slurm would kill it for a bad exit of ours, before it can say why the stage failed
        traceback.print_exc()
    return 0


def _run(records: JobRecords, batch: Batch, task: int, key: str, warned: Warned) -> bool:
    """Run one stage of the task; whether it has its result now."""
    run = RunDir(Path(batch.root), key)
    claim = records.newest_claim(key)
    if claim is None or (claim.batch, claim.task) != (batch.name, task):
        print(f"{key}: submitted anew since; this job leaves it alone", file=sys.stderr)
        return run.result() is not None
    if records.end_of(batch.name, key) is not None:  # in an earlier life of this job; whoever waits for it knows already
        return run.result() is not None
    if warned.asked(key):
        records.record_end(batch.name, key, EndReason.CANCELLED, "cancelled before it began")
        return False
    if not parent_done(run):
        records.record_end(batch.name, key, EndReason.ORPHANED, "its parent left no result")
        return False
    outcome = Outcome.BUSY
    rank_launch = _rank_launch(records, batch)
    while outcome is Outcome.BUSY and not warned.stop(key):
        try:
            outcome = load_entry_point(batch.stage)(
                run.root, key, Path(batch.data_root), stop=lambda: warned.stop(key), rank_launch=rank_launch
            )
        except Exception as error:
            traceback.print_exc()
            records.record_end(batch.name, key, EndReason.DIED, f"{type(error).__name__}: {error}")
            return False
        if outcome is Outcome.BUSY:  # an earlier life of this job may go on for a while after its node was given up
            time.sleep(BUSY_SECONDS)
    if outcome not in (Outcome.STOPPED, Outcome.BUSY):
        records.record_end(batch.name, key, None)
    elif warned.asked(key):
        records.record_end(batch.name, key, EndReason.CANCELLED, "cancelled while it ran; its state is saved")
    return run.result() is not None


def _why(batch: Batch, number: int, seconds: float) -> EndReason | None:
    """What the signal meant; None for one whose meaning only the scheduler knows (it ends every job by SIGTERM)."""
    if number != signal.SIGUSR2:
        return None
    return EndReason.TIMEOUT if seconds >= batch.minutes * 60 - batch.signal_seconds - EARLY_SECONDS else EndReason.PREEMPTED


def _requeue(records: JobRecords, batch: Batch, task: int, kind: EndReason, warned: Warned) -> None:
    """Have Slurm run this job again, unless it was asked to end or has had enough lives of this kind."""
    ends = Counter(life.get("end") for life in records.job_runs(batch.name, task))
    if ends[kind] >= MAX_ATTEMPTS[kind] or all(records.stop_requested(batch.name, key) for key in batch.tasks[task]):
        return
    answer = subprocess.run(
        ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], capture_output=True, text=True, timeout=60, check=False
    )
    until = time.monotonic() + REQUEUE_SECONDS
    while answer.returncode == 0 and not warned.ended and time.monotonic() < until:
        time.sleep(0.1)  # Slurm ends this life; an exit of its own could be taken for the job's
    if answer.returncode != 0:
        print(f"could not be requeued ({answer.stderr.strip()}); it will be submitted again", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:4] if len(sys.argv) == 4 else ()))
