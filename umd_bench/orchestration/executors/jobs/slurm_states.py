"""What Slurm says of one job, in a person's words. Apart from the queue, since who only looks needs no submitit."""

from __future__ import annotations

from umd_bench.orchestration.commands import output


def waits_because(job: str, seconds: float) -> str | None:
    """``waits in the queue (Priority)``, or the state the job is in; None where nobody says so within ``seconds``."""
    lines = output("squeue", "--noheader", f"--jobs={job}", "--states=all", "--format=%T|%r|%S|%N", seconds=seconds)
    state, why, at, node = (((lines or "").splitlines() or [""])[0].split("|") + [""] * 4)[:4]
    if state == "PENDING":
        return f"waits in the queue ({why})" + (f", to start about {at}" if at not in ("", "N/A") else "")
    return f"is {state}" + (f" on {node}" if node else "") if state else None
