"""Jobs as processes of this machine, through submitit's local executor: Slurm's rules without a Slurm.

A job is a controller process that starts ours, warns it before its time is over and ends it then. It outlives the command that
submitted it, and is known by its process id and the moment it began.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import psutil
import submitit

from umd_bench.orchestration.executors.jobs.queue_contract import JobStatus
from umd_bench.orchestration.executors.jobs.records import Batch

KILL_SECONDS = 5.0  # between asking a cancelled job to end and ending it


def process_id(pid: int) -> str:
    """A process as an id that no later process has."""
    return f"{pid}:{psutil.Process(pid).create_time():.2f}"


class LocalQueue:
    """At most ``capacity`` jobs side by side."""

    name = "submitit-local"
    status_seconds = 0.5

    def __init__(self, capacity: int) -> None:
        self.capacity: int | None = capacity

    def array_limit(self) -> int:
        """A job each."""
        return 1

    def submit(self, batch: Batch, folder: Path, python: str, *, after: str | None, avoid: Iterable[str]) -> list[str]:
        """Start the controller; it must outlive a Ctrl-C and the terminal, which are meant for the command."""
        executor = submitit.LocalExecutor(folder, python=python)
        executor.update_parameters(timeout_min=batch.minutes, signal_delay_s=batch.signal_seconds)
        with _deaf_children():
            job = executor.submit(nothing)
        return [process_id(int(job.job_id))]

    def find(self, batch: Batch, folder: Path) -> list[str] | None:
        """The controller is told the folder on its command line."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[-3:] == ["-m", "submitit.local._local", str(folder)]:
                    return [process_id(process.pid)]
        return []

    def status(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """A process is there or it is not."""
        return {name: JobStatus(over=_process(name) is None, running=True, state="process") for name in ids}

    def cancel(self, ids: Sequence[str], *, pending_only: bool = False) -> None:
        """The controller passes SIGTERM on; what is still there after a while is ended."""
        for name in () if pending_only else ids:
            process = _process(name)
            if process is not None:
                with contextlib.suppress(psutil.Error):
                    family = [process, *process.children(recursive=True)]
                    process.terminate()
                    ender = threading.Timer(KILL_SECONDS, _kill, [family])
                    ender.daemon = True
                    ender.start()


def nothing() -> None:
    """What submitit is given to pickle: the job itself reads its batch instead."""


def _process(name: str) -> psutil.Process | None:
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
def _deaf_children() -> Iterator[None]:
    """Processes started meanwhile ignore what a terminal sends to all of its processes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
