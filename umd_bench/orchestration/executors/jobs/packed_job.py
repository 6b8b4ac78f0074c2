"""Several stages of one job at a time, each in a process of its own, so that they share the job's GPU.

The job's process starts them, passes its signals on and waits. After a warning each stage saves its state and ends, and then
the job's process requeues the job for all of them. A process that dies ends only its own stage.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.jobs.records import Batch, JobRecords

JOB_MODULE = "umd_bench.orchestration.executors.jobs.job_main"
POLL_PROCESSES_SECONDS = 0.1
WARNINGS = frozenset({signal.SIGUSR2, signal.SIGTERM})


class Signals(Protocol):
    """The signals that the job's process has received."""

    first: int | None
    terminated: bool


def run_packed(records: JobRecords, batch: Batch, task: int, keys: Sequence[str], received: Signals) -> list[bool]:
    """Run the stages, at most ``batch.side_by_side`` at a time; returns whether each has its result.

    No stage starts after a signal.
    """
    waiting, running = list(keys), dict[str, subprocess.Popen[bytes]]()
    done = dict.fromkeys(keys, False)
    passed_on: set[int] = set()
    while running or (waiting and received.first is None):
        while waiting and len(running) < batch.side_by_side and received.first is None:
            key = waiting.pop(0)
            running[key] = _start(records.folder(batch.name), task, key)
        for number in _numbers(received) - passed_on:
            passed_on.add(number)
            for process in running.values():
                process.send_signal(number)
        for key, process in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[key]
            done[key] = code == 0
            if code not in (0, 1) and not received.terminated:  # after SIGTERM the scheduler says why all have ended
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                records.record_end(batch.name, key, EndReason.DIED, f"its process {how}")
        time.sleep(POLL_PROCESSES_SECONDS)
    return list(done.values())


def _start(folder: Path, task: int, key: str) -> subprocess.Popen[bytes]:
    """Start the process of one stage, with the warning signals blocked until it has its handlers.

    With ``-P``, as in the job's own command, Python finds the frozen copy of the code first.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WARNINGS)
    try:
        return subprocess.Popen([sys.executable, "-P", "-m", JOB_MODULE, str(folder), str(task), key], stdin=subprocess.DEVNULL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _numbers(received: Signals) -> set[int]:
    first = set() if received.first is None else {received.first}
    return first | ({int(signal.SIGTERM)} if received.terminated else set())
