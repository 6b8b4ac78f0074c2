"""A small init process for one daemon: ``reaper.py PIDFILE COMMAND...``. It adopts processes that the daemon abandons.

It ends, with every descendant, on SIGTERM or when its standard input closes. The test process holds the other end of that pipe,
so nothing outlives a test run, however it ends. SIGUSR1 starts the daemon again. SIGUSR2 kills every descendant, as a power cut
does.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
TERM_SECONDS = 5.0
KILL_SECONDS = 15.0  # less than the 30 s that the cluster waits for its reapers


def descendants(pid: int) -> list[int]:
    """Living processes below ``pid``."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rsplit(")", 1)[1].split()[:2]
            except OSError:
                continue
            if state != "Z":
                children.setdefault(int(parent), []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found


class Reaper:
    """Starts one daemon and adopts its descendants."""

    def __init__(self, pidfile: Path, command: list[str]) -> None:
        self._pidfile, self._command = pidfile, command
        self._received: set[int] = set()
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, lambda number, frame: self._received.add(number))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def run(self) -> None:
        """Serve signals until it has to end."""
        daemon = self._start()
        open_stdin = True
        while signal.SIGTERM not in self._received and open_stdin:
            ready = select.select([self._wake, 0], [], [], 5)[0]
            if self._wake in ready:
                os.read(self._wake, 4096)
            open_stdin = 0 not in ready or bool(os.read(0, 4096))
            _reap()
            if signal.SIGUSR2 in self._received:
                self._received.discard(signal.SIGUSR2)
                _kill_all()
            if signal.SIGUSR1 in self._received:
                self._received.discard(signal.SIGUSR1)
                daemon = self._start()
        with contextlib.suppress(ProcessLookupError):
            os.kill(daemon, signal.SIGTERM)
        until = time.monotonic() + TERM_SECONDS
        while time.monotonic() < until and daemon in descendants(os.getpid()):
            time.sleep(0.02)
            _reap()
        _kill_all()

    def _start(self) -> int:
        process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, start_new_session=True, cwd="/")
        new = self._pidfile.with_suffix(".new")
        new.write_text(f"{os.getpid()} {process.pid}")
        new.rename(self._pidfile)
        return process.pid


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _kill_all() -> None:
    """Kill every descendant. A process that waits for a device cannot be killed, and is left to init after a while."""
    until = time.monotonic() + KILL_SECONDS
    while (found := descendants(os.getpid())) and time.monotonic() < until:
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
        _reap()


if __name__ == "__main__":
    Reaper(Path(sys.argv[1]), sys.argv[2:]).run()
