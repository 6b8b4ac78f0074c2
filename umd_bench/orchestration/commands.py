"""Answers of other programs, each within a time: one that is not there, does not start or stays silent gives none."""

from __future__ import annotations

import subprocess


def answer(*command: str, seconds: float) -> subprocess.CompletedProcess[str] | None:
    """What the command said, whatever its exit status; None where it said nothing within ``seconds`` or is not there."""
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def output(*command: str, seconds: float) -> str | None:
    """What a command printed that ended well within ``seconds``; otherwise None."""
    said = answer(*command, seconds=seconds)
    return None if said is None or said.returncode else said.stdout
