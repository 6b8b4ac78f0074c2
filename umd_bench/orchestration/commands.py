"""Commands of other programs (Slurm's, mostly), each with a timeout: a missing or silent program raises nothing."""

from __future__ import annotations

import subprocess


def run_command(*command: str, seconds: float) -> subprocess.CompletedProcess[str] | None:
    """Run a command with a timeout, whatever its exit status; None if it is missing or takes longer than ``seconds``."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def output_of(*command: str, seconds: float) -> str | None:
    """The standard output of a command that exits with status 0 within ``seconds``; otherwise None."""
    done = run_command(*command, seconds=seconds)
    return None if done is None or done.returncode else done.stdout
