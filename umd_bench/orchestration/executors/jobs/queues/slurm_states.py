"""Slurm's job ids, and the state of a job in words, for modules that must not import submitit as the queue does."""

from __future__ import annotations

from umd_bench.orchestration.commands import output_of


def array_ids(array: str, count: int) -> list[str]:
    """The job ids of the ``count`` tasks of an array."""
    return [f"{array}_{i}" for i in range(count)]


def describe_state(job: str, seconds: float) -> str | None:
    """``waits in the queue (Priority)``, or ``is RUNNING on node7``; None if squeue does not answer within ``seconds``."""
    lines = output_of("squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T|%r|%S|%N", seconds=seconds)
    state, reason, start, node = (((lines or "").splitlines() or [""])[0].split("|") + [""] * 4)[:4]
    if state == "PENDING":
        return f"waits in the queue ({reason})" + (f", to start about {start}" if start not in ("", "N/A") else "")
    return f"is {state}" + (f" on {node}" if node else "") if state else None
