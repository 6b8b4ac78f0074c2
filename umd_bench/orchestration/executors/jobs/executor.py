"""Stages as jobs that outlive the command: one executor over Slurm and over submitit's local jobs.

Everything that is known of a job stands in its batch's folder (see :mod:`~umd_bench.orchestration.executors.jobs.records`),
and what
became of its stages in their run directories; nothing is read from submitit's pickles. The scheduler is asked only about jobs
that have not said themselves that they are over, and is believed when it says so twice.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.executors.contract import Ended, EndReason
from umd_bench.orchestration.executors.frozen_code import code_folder, freeze_code
from umd_bench.orchestration.executors.jobs.packed_job import JOB_MODULE
from umd_bench.orchestration.executors.jobs.queue_contract import JobStatus, Queue, Unreachable
from umd_bench.orchestration.executors.jobs.records import Batch, Claim, JobRecords, new_name
from umd_bench.orchestration.stage_process.entry_point import RUN_STAGE
from umd_bench.store import RunDir, parent_done

LOOK_SECONDS = 0.2  # between two looks at the batches' folders within one poll
SUBMITTING_SECONDS = 30.0  # for which a submission may still be under way whose submitting side has gone
RETRY_SECONDS = 10.0  # until a scheduler that did not answer is given the batch again
SILENT_SECONDS = 300.0  # for which a job that is said to run may leave all of its stages without an owner


class SubmititExecutor:
    """Runs stages, on ``devices`` at the most, as jobs of ``queue`` that ask for what ``cluster`` says."""

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
        self.root, self._data_root, self._queue, self._cluster = root.resolve(), data_root.resolve(), queue, cluster
        self._threads, self._devices, self._entry_point = threads, devices, entry_point
        self._records = JobRecords(self.root)
        self._waiting: dict[str, str | None] = {}  # key -> key of the stage that must end well first
        self._live: dict[str, Claim] = {}
        self._batches: dict[str, Batch] = {}
        self._over_since: dict[str, float] = {}
        self._silent_since: dict[str, float] = {}
        self._again_at: dict[str, float] = {}  # when a batch that may not have been taken is looked for
        self._asked_at = float("-inf")
        self._avoid: set[str] = set()
        self._given_up: set[str] = set()  # jobs that were ended here since they had been silent for too long
        self._ended: list[Ended] = []
        self._code: Path | None = None
        self._stopping = False

    def submit(self, key: str, *, after: str | None = None) -> None:
        """Submitted with all others at the next :meth:`poll`; ``after`` is a stage whose job must leave its result first."""
        self._waiting[key] = after

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """The newest claims of these stages that nothing has ended, where this queue can tell what became of them."""
        return {claim.key for claim in self._records.open_claims(keys) if self._take(claim)}

    def poll(self, timeout: float) -> list[Ended]:
        """Submit what waits, then look until something ended."""
        deadline = time.monotonic() + timeout
        while True:
            self.flush()
            self._look()
            ended, self._ended = self._ended, []
            if ended or time.monotonic() >= deadline or not (self._live or self._waiting):
                return ended
            time.sleep(max(0.0, min(LOOK_SECONDS, deadline - time.monotonic())))

    def cancel(self, key: str) -> None:
        """A waiting job never begins; a running one is asked, and warned by the scheduler, to save its state and end."""
        if key in self._waiting:
            del self._waiting[key]
            self._ended.append(Ended(key, EndReason.CANCELLED, "cancelled before it was submitted"))
        claim = self._live.get(key)
        if claim is None:
            return
        self._records.request_stop(claim.batch, key)
        beside = set(self._batches[claim.batch].tasks[claim.task]) - self._records.ended_keys(claim.batch)
        ids = self._records.job_ids(claim.batch)
        if ids is not None and beside <= {key}:
            self._queue.cancel([ids[claim.task]])

    def stop(self) -> None:
        """Jobs that wait are taken back, those that run save their state and end without being requeued."""
        self._stopping = True
        for key in list(self._waiting):
            self.cancel(key)
        for name in {claim.batch for claim in self._live.values()}:
            self._records.request_stop(name)
        self._queue.cancel(self._live_ids(), pending_only=True)

    def detach(self) -> None:
        """Forget the jobs; they go on, and whoever comes next adopts them."""
        self._waiting.clear()
        self._live.clear()
        self._ended.clear()

    def close(self) -> None:
        """Cancel every job that is not over."""
        for name in {claim.batch for claim in self._live.values()}:
            self._records.request_stop(name)
        self._queue.cancel(self._live_ids())
        self.detach()

    def flush(self) -> bool:
        """Submit what waits, as far as there is room; whether some still waits."""
        if self._stopping or not self._waiting:
            return False
        room = len(self._waiting)
        if self._queue.capacity is not None:
            jobs = {(claim.batch, claim.task) for claim in self._live.values()}
            room = (self._queue.capacity - len(jobs)) * self._cluster.pack
        groups: dict[tuple[str | None, int], list[str]] = {}
        for key in list(self._waiting)[: max(0, room)]:
            claim = next(self._records.open_claims([key]), None)
            if claim is not None and self._take(claim):  # another command was first
                del self._waiting[key]
            else:
                groups.setdefault((self._waiting[key], self._devices_of(key)), []).append(key)
        for (after, devices), keys in groups.items():
            size = self._pack(devices) * self._queue.array_limit()
            for start in range(0, len(keys), size):
                self._submit_batch(keys[start : start + size], after, devices)
        return bool(self._waiting)

    def unconfirmed(self) -> bool:
        """Whether some batch was given to the scheduler without an answer."""
        return bool(self._again_at)

    # ---- submitting

    def _devices_of(self, key: str) -> int:
        return 1 if self._devices == 1 else RunDir(self.root, key).config().devices

    def _pack(self, devices: int) -> int:
        """How many stages a job runs: the ranks of one that takes several devices live for it alone."""
        return self._cluster.pack if devices == 1 else 1

    def _submit_batch(self, keys: list[str], after: str | None, devices: int) -> None:
        parent = None
        if after is not None and (claim := next(self._records.open_claims([after]), None)) is not None:
            ids = self._records.job_ids(claim.batch)
            if ids is None:  # its own submission is not sure yet
                return
            parent = ids[claim.task]
        if self._code is None:
            self._code = freeze_code(code_folder(self.root))
        pack = self._pack(devices)
        tasks = tuple(tuple(keys[i : i + pack]) for i in range(0, len(keys), pack))
        batch = Batch(
            name=new_name(),
            executor=self.name,
            host=platform.node(),
            created=time.time(),
            tasks=tasks,
            root=str(self.root),
            data_root=str(self._data_root),
            stage=self._entry_point,
            code=str(self._code),
            minutes=self._cluster.time,
            signal_seconds=self._cluster.signal_seconds,
            threads=self._threads,
            devices=devices,
            side_by_side=self._cluster.side_by_side if devices == 1 else 1,
            after=parent,
        )
        self._records.write_batch(batch)
        for index, task in enumerate(tasks):
            for key in task:
                newest = self._records.newest_claim(key)
                claim = Claim(key, newest.number + 1 if newest else 1, batch.name, index)
                if not self._records.claim(claim):
                    other = self._records.newest_claim(key)
                    if other is None or not self._take(other):
                        continue  # ended already, or not ours to follow: it is tried again at the next poll
                else:
                    self._live[key] = claim
                self._waiting.pop(key, None)
        self._batches[batch.name] = batch
        if any(claim.batch == batch.name for claim in self._live.values()):
            self._launch(batch)

    def _launch(self, batch: Batch) -> None:
        """Hand a batch to the scheduler; one that does not answer is asked later what it has, and only then given it again."""
        try:
            ids = self._queue.submit(
                batch, self._records.folder(batch.name), self._python(batch), after=batch.after, avoid=sorted(self._avoid)
            )
        except Unreachable:
            self._again_at[batch.name] = time.time() + RETRY_SECONDS
        except UserError as error:
            for key in [key for key, claim in self._live.items() if claim.batch == batch.name]:
                self._records.record_end(batch.name, key, EndReason.CANCELLED, f"refused: {error}")
                del self._live[key]
            raise
        else:
            self._records.confirm(batch.name, ids)

    def _python(self, batch: Batch) -> str:
        """What submitit takes for the interpreter: our own module, which leaves its arguments alone.

        ``-P`` keeps the job's working directory off the path, so that the frozen copy of the code is found first.
        """
        path = os.pathsep.join(filter(None, [batch.code, os.environ.get("PYTHONPATH", "")]))
        threads = str(batch.threads)
        variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        settings = [f"{name}={value}" for name, value in variables.items()]
        command = ["env", *settings, sys.executable, "-P", "-m", JOB_MODULE, str(self._records.folder(batch.name))]
        return shlex.join(command)

    # ---- looking

    def _take(self, claim: Claim) -> bool:
        """Follow a job that another process submitted; False where this queue cannot know of it."""
        batch = self._batches.get(claim.batch) or self._records.read_batch(claim.batch)
        if batch is None or batch.executor != self.name or self._records.end_of(claim.batch, claim.key) is not None:
            return False
        if self._queue.capacity is not None and batch.host != platform.node():  # processes of another machine
            return False
        self._batches[batch.name] = batch
        self._live[claim.key] = claim
        if self._records.job_ids(batch.name) is None:
            self._again_at.setdefault(batch.name, batch.created + SUBMITTING_SECONDS)
        return True

    def _look(self) -> None:
        for name in {claim.batch for claim in self._live.values()}:
            for key in self._records.ended_keys(name):
                claim = self._live.get(key)
                if claim is not None and claim.batch == name:
                    self._finish(key)
        now = time.monotonic()
        if not self._live or now - self._asked_at < self._queue.status_seconds:
            return
        self._asked_at = now
        self._settle_submissions()
        ids = {name: self._records.job_ids(name) for name in {claim.batch for claim in self._live.values()}}
        names = {key: found[claim.task] for key, claim in self._live.items() if (found := ids[claim.batch]) is not None}
        looks = self._queue.status(sorted(set(names.values())))
        for key, name in names.items():
            if (look := looks.get(name)) is not None:
                self._believe(key, name, look)

    def _settle_submissions(self) -> None:
        """What became of batches that may not have been taken: found, given again, or still unknown."""
        for name, at in list(self._again_at.items()):
            batch = self._batches[name]
            if self._records.job_ids(name) is not None:
                del self._again_at[name]
                continue
            found = self._queue.find(batch, self._records.folder(name))
            if found:
                self._records.confirm(name, found)
                del self._again_at[name]
            elif found is not None and time.time() >= at and not self._stopping:
                del self._again_at[name]
                self._launch(batch)

    def _believe(self, key: str, name: str, look: JobStatus) -> None:
        """A job is over when that was said twice and nobody holds its stage; one that runs must have an owner before long."""
        now = time.monotonic()
        claim = self._live[key]
        if look.over:
            since = self._over_since.setdefault(key, now)
            if now > since and not RunDir(self.root, key).is_owned():
                kind, message = self._why(claim, look)
                self._records.record_end(claim.batch, key, kind, message)
                self._finish(key)
            return
        self._over_since.pop(key, None)
        task = self._batches[claim.batch].tasks[claim.task]
        begun = look.running and any("begun" in life for life in self._records.job_runs(claim.batch, claim.task))
        if not begun or any(RunDir(self.root, other).is_owned() for other in task):
            self._silent_since.pop(key, None)
        elif now - self._silent_since.setdefault(key, now) > SILENT_SECONDS:
            self._given_up.add(name)  # its process died under a scheduler that has not seen it
            self._queue.cancel([name])

    def _why(self, claim: Claim, look: JobStatus) -> tuple[EndReason, str]:
        """What ended a job: the scheduler's word, else the job's own last one, else nobody knows."""
        lives = self._records.job_runs(claim.batch, claim.task)
        said = next((life["end"] for life in reversed(lives) if life.get("end")), None)
        where = f"job {self._records.job_ids(claim.batch)[claim.task]}" if self._records.job_ids(claim.batch) else "its job"  # type: ignore[index]
        where += f" on {look.node}" if look.node else ""
        if look.reason is EndReason.CANCELLED and not lives and self._is_orphan(claim):
            return EndReason.ORPHANED, f"{where} was taken back: its parent's job left no result"
        ids = self._records.job_ids(claim.batch)
        if (
            look.reason is EndReason.CANCELLED and ids is not None and ids[claim.task] in self._given_up
        ):  # our word, not a person's
            return EndReason.DIED, f"{where} was said to run, but left its stage without an owner; it was ended"
        if look.reason is EndReason.NODE_FAIL and look.node:
            self._avoid.add(look.node)
        begun = next((life["time"] for life in reversed(lives) if life.get("begun")), None)
        late = begun is not None and time.time() - begun >= self._cluster.time * 60 and self._queue.capacity is not None
        kind = look.reason or (EndReason(said) if said else EndReason.TIMEOUT if late else EndReason.DIED)
        return kind, f"{where} ended ({look.state})"

    def _is_orphan(self, claim: Claim) -> bool:
        """Whether Slurm had a reason of its own to take the job back: the one before it ended badly.

        The weights that the stage reads may be there all the same, kept on the way of a training that was lost later.
        """
        run = RunDir(self.root, claim.key)
        if self._batches[claim.batch].after is None:
            return not parent_done(run)
        parent = run.config().parent_key
        return parent is not None and RunDir(self.root, parent).result() is None

    def _finish(self, key: str) -> None:
        claim = self._live.pop(key)
        self._over_since.pop(key, None)
        self._silent_since.pop(key, None)
        kind, message = self._records.end_of(claim.batch, key) or (None, "")
        self._ended.append(Ended(key, kind, message))

    def _live_ids(self) -> list[str]:
        found = ((self._records.job_ids(claim.batch), claim.task) for claim in self._live.values())
        return sorted({ids[task] for ids, task in found if ids is not None})
