"""What :class:`~umd_bench.orchestration.executors.jobs.executor.SubmititExecutor` needs of a scheduler."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.jobs.records import Batch


class Unreachable(Exception):  # noqa: N818 - a state, not a fault
    """The scheduler did not answer, or not now: whether it took what it was given is not known."""


@dataclass(frozen=True)
class JobStatus:
    """What the scheduler says of one job: whether it is over and, where it says so, how."""

    over: bool
    running: bool = False
    reason: EndReason | None = None
    state: str = ""
    node: str = ""


class Queue(Protocol):
    """A scheduler. Its answers are about what it knows: what it leaves out, or cannot say now, is unknown."""

    name: str
    status_seconds: float
    """How often it may be asked."""
    capacity: int | None
    """How many jobs it takes at a time; None where it keeps a queue of its own."""

    def array_limit(self) -> int:
        """How many tasks a batch may have."""

    def submit(self, batch: Batch, folder: Path, python: str, *, after: str | None, avoid: Iterable[str]) -> list[str]:
        """Submit the batch's tasks; the id of each. ``folder`` takes logs, ``python`` is the command that runs a job.

        ``after`` is the id of a job that must end well first, ``avoid`` are nodes that failed. Raises :class:`Unreachable`, and
        :class:`UserError` where the scheduler will never take it.
        """

    def find(self, batch: Batch, folder: Path) -> list[str] | None:
        """Ids of a batch that may have been submitted: an empty list when it was not, None when that cannot be told."""

    def status(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """What is known of these jobs; never raises."""

    def cancel(self, ids: Sequence[str], *, pending_only: bool = False) -> None:
        """End jobs, with the scheduler's warning to what runs; never raises."""
