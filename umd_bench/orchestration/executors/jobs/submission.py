"""From keys of stages to jobs in the scheduler, each recorded before it is submitted and confirmed after.

If the scheduler does not answer, it is unknown whether it accepted the batch. The scheduler's jobs are then searched for the
batch, which is submitted again only if it is not among them.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.executors.frozen_code import code_folder, freeze_code
from umd_bench.orchestration.executors.jobs.packed_job import JOB_MODULE
from umd_bench.orchestration.executors.jobs.queues.contract import Queue, Unreachable
from umd_bench.orchestration.executors.jobs.records import Batch, JobRecords, new_name

SUBMITTING_SECONDS = 30.0  # a command that has not confirmed its batch after this time counts as dead
RETRY_SECONDS = 10.0  # before a batch goes again to a scheduler that did not answer


class Submitter:
    """Writes batches and gives them to ``queue``, on behalf of one executor."""

    def __init__(
        self, records: JobRecords, queue: Queue, cluster: ClusterConfig, *, data_root: Path, threads: int, entry_point: str
    ) -> None:
        self._records, self._queue, self._cluster = records, queue, cluster
        self._data_root, self._threads, self._entry_point = data_root, threads, entry_point
        self._code: Path | None = None
        self._unconfirmed: dict[str, tuple[Batch, float]] = {}  # by name, with the earliest time to submit it again
        self.avoid: set[str] = set()
        """Nodes that failed."""

    def pack(self, devices: int) -> int:
        """How many stages one job runs; a stage on several devices has a job of its own."""
        return self._cluster.pack if devices == 1 else 1

    def write_batch(self, keys: Sequence[str], devices: int, after: str | None) -> Batch:
        """Record a batch of these stages; ``after`` is the id of a job that must succeed first."""
        pack = self.pack(devices)
        batch = Batch(
            name=new_name(),
            executor=self._queue.name,
            host=platform.node(),
            created=time.time(),
            tasks=tuple(tuple(keys[i : i + pack]) for i in range(0, len(keys), pack)),
            root=str(self._records.root),
            data_root=str(self._data_root),
            entry_point=self._entry_point,
            code=str(self._frozen_code()),
            minutes=self._cluster.time,
            signal_seconds=self._cluster.signal_seconds,
            threads=self._threads,
            devices=devices,
            side_by_side=self._cluster.side_by_side if devices == 1 else 1,
            after=after,
        )
        self._records.write_batch(batch)
        return batch

    def submit(self, batch: Batch) -> None:
        """Give the batch to the scheduler; raises :class:`UserError` if it refuses.

        A batch that a command of another version recorded is changed to run this command's code, since the job's module and the
        entry point have the names of this version.
        """
        self._unconfirmed.pop(batch.name, None)
        ours = batch.model_copy(update={"code": str(self._frozen_code()), "entry_point": self._entry_point})
        if ours != batch:
            self._records.write_batch(ours)
            batch = ours
        folder = self._records.folder(batch.name)
        try:
            ids = self._queue.submit(batch, folder, self._job_command(batch), after=batch.after, avoid=sorted(self.avoid))
        except Unreachable:
            self._unconfirmed[batch.name] = batch, time.time() + RETRY_SECONDS
        else:
            self._records.confirm(batch.name, ids)

    def expect(self, batch: Batch) -> None:
        """Follow a batch that another command may still be submitting."""
        self._unconfirmed.setdefault(batch.name, (batch, batch.created + SUBMITTING_SECONDS))

    def unconfirmed(self) -> bool:
        """Whether there is a batch that the scheduler may or may not have."""
        return bool(self._unconfirmed)

    def check_unconfirmed(self) -> Iterator[Batch]:
        """Confirm the unconfirmed batches that the scheduler has; yields those that are due to be submitted again."""
        for name, (batch, due) in list(self._unconfirmed.items()):
            if self._records.job_ids(name) is not None:
                del self._unconfirmed[name]
                continue
            ids = self._queue.find(batch, self._records.folder(name))
            if ids:
                self._records.confirm(name, ids)
                del self._unconfirmed[name]
            elif ids is not None and time.time() >= due:
                yield batch

    def _frozen_code(self) -> Path:
        if self._code is None:
            self._code = freeze_code(code_folder(self._records.root))
        return self._code

    def _job_command(self, batch: Batch) -> str:
        """The command of a job. Submitit takes it for the interpreter; our module ignores the arguments that submitit adds.

        ``-P`` keeps the job's working directory off the path, so that Python finds the frozen copy of the code first.
        """
        path = os.pathsep.join(filter(None, [batch.code, os.environ.get("PYTHONPATH", "")]))
        threads = str(batch.threads)
        variables = {"PYTHONPATH": path, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        settings = [f"{name}={value}" for name, value in variables.items()]
        return shlex.join(["env", *settings, sys.executable, "-P", "-m", JOB_MODULE, str(self._records.folder(batch.name))])
