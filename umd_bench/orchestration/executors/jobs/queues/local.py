"""Jobs as processes of this machine, through submitit's local executor, with the same rules as jobs of Slurm.

Each job has a controller process, which starts our process, warns it before the time limit and kills it after the limit. The
controller outlives the command that started it. The job's id is the process id of the controller and the time when it began.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil
import submitit

from umd_bench.orchestration.executors.jobs.queues.contract import JobStatus, placeholder
from umd_bench.orchestration.executors.jobs.records import Batch

KILL_SECONDS = 5.0  # from the SIGTERM of a cancelled job to its SIGKILL


def process_id(pid: int) -> str:
    """The process id and the time when the process began, since the system reuses process ids."""
    return f"{pid}:{psutil.Process(pid).create_time():.2f}"


class LocalQueue:
    """At most ``capacity`` jobs at a time."""

    name = "submitit-local"
    status_seconds = 0.5

    def __init__(self, capacity: int) -> None:
        self.capacity: int | None = capacity

    def array_limit(self) -> int:
        """One task per batch."""
        return 1

    def submit(self, batch: Batch, folder: Path, python: str, *, after: str | None, avoid: Iterable[str]) -> list[str]:
        """Start the controller. It ignores a Ctrl-C and the end of the terminal, which are meant for the command."""
        executor = submitit.LocalExecutor(folder, python=python)
        executor.update_parameters(timeout_min=batch.minutes, signal_delay_s=batch.signal_seconds)
        with _children_ignore_the_terminal():
            job = executor.submit(placeholder)
        return [process_id(int(job.job_id))]

    def find(self, batch: Batch, folder: Path) -> list[str] | None:
        """Look for a controller with this folder on its command line."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[-3:] == ["-m", "submitit.local._local", str(folder)]:
                    return [process_id(process.pid)]
        return []

    def status(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """A job is over when its controller is gone."""
        return {name: JobStatus(over=_process(name) is None, running=True, state="process") for name in ids}

    def cancel(self, ids: Sequence[str], *, pending_only: bool = False) -> None:
        """Send SIGTERM to the controller, which passes it on; kill the processes that are left after ``KILL_SECONDS``."""
        for name in () if pending_only else ids:
            process = _process(name)
            if process is not None:
                with contextlib.suppress(psutil.Error):
                    family = [process, *process.children(recursive=True)]
                    process.terminate()
                    killer = threading.Timer(KILL_SECONDS, _kill, [family])
                    killer.daemon = True
                    killer.start()


def _process(name: str) -> psutil.Process | None:
    """The living process with this job id."""
    pid, _, begun = name.partition(":")
    try:
        process = psutil.Process(int(pid))
        same = f"{process.create_time():.2f}" == begun and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same else None


def _kill(family: list[psutil.Process]) -> None:
    for process in family:
        with contextlib.suppress(psutil.Error):
            process.kill()


@contextlib.contextmanager
def _children_ignore_the_terminal() -> Iterator[None]:
    """Processes that start in this context ignore SIGINT and SIGHUP, which a terminal sends to all of its processes.

    Only the main thread may set handlers; in another thread this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
