"""Several stages of one job at a time, each in a process of its own, for stages that share a GPU.

The job's process starts them, passes its warnings on, and waits: each saves its state and ends, and the job is requeued once.
One that dies takes only its own stage along.
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
LOOK_SECONDS = 0.1
WARNINGS = frozenset({signal.SIGUSR2, signal.SIGTERM})


class Heard(Protocol):
    """What the job's process was warned of."""

    signal: int | None
    ended: bool


def run_side_by_side(records: JobRecords, batch: Batch, task: int, keys: Sequence[str], heard: Heard) -> list[bool]:
    """Run the stages, at most ``batch.side_by_side`` at a time; whether each has its result. A warning starts no more."""
    waiting, running = list(keys), dict[str, subprocess.Popen[bytes]]()
    done = dict.fromkeys(keys, False)
    passed_on: set[int] = set()
    while running or (waiting and heard.signal is None):
        while waiting and len(running) < batch.side_by_side and heard.signal is None:
            key = waiting.pop(0)
            running[key] = _start(records.folder(batch.name), task, key)
        for number in _told(heard) - passed_on:
            passed_on.add(number)
            for process in running.values():
                process.send_signal(number)
        for key, process in list(running.items()):
            code = process.poll()
            if code is None:
                continue
            del running[key]
            done[key] = code == 0
            if code not in (0, 1) and not heard.ended:  # else the scheduler ends all, and says why
                how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
                records.record_end(batch.name, key, EndReason.DIED, f"its process {how}")
        time.sleep(LOOK_SECONDS)
    return list(done.values())


def _start(folder: Path, task: int, key: str) -> subprocess.Popen[bytes]:
    """``-P`` as for the job's own process: the frozen copy of the code is found first. Warnings wait until they are heard."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WARNINGS)
    try:
        return subprocess.Popen([sys.executable, "-P", "-m", JOB_MODULE, str(folder), str(task), key], stdin=subprocess.DEVNULL)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _told(heard: Heard) -> set[int]:
    first = set() if heard.signal is None else {heard.signal}
    return first | ({int(signal.SIGTERM)} if heard.ended else set())
