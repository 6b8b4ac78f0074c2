"""Run other programs for a limited time: a command whose answer is read, or a process that is killed when a block ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from typing import Any


def run_command(*command: str, seconds: float) -> subprocess.CompletedProcess[str] | None:
    """Run a command with a timeout; None if it is missing or too slow. Its exit status is not checked."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def output_of(*command: str, seconds: float) -> str | None:
    """The output of a command; None if the command is missing, too slow or exits with an error."""
    result = run_command(*command, seconds=seconds)
    return None if result is None or result.returncode else result.stdout


@contextlib.contextmanager
def running_process(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a process in a session of its own, and kill it with all its children when the block ends.

    ``options`` are passed to :class:`subprocess.Popen`; streams are opened as text.
    """
    with subprocess.Popen(command, text=True, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            kill_group(process)


def kill_group(process: subprocess.Popen[str]) -> None:
    """Kill a process that leads a session, and its children. Does nothing if it has ended."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def last_line(text: str) -> str:
    """The last line of ``text`` that is not blank, or an empty string. A program that fails usually prints the reason there."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")
