"""The interface of a scheduler to :class:`~umd_bench.orchestration.executors.jobs.executor.SubmititExecutor`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.orchestration.executors.jobs.records import Batch


class Unreachable(Exception):  # noqa: N818 - a state, not a fault
    """The scheduler did not answer. Whether it accepted the jobs is unknown."""


@dataclass(frozen=True)
class JobStatus:
    """The state of one job. ``state`` is the scheduler's name for it; ``reason`` is given if the job was ended."""

    over: bool
    running: bool = False
    reason: EndReason | None = None
    state: str = ""
    node: str = ""


class Queue(Protocol):
    """A scheduler. A job that it leaves out of an answer is unknown, never over."""

    name: str
    status_seconds: float
    """The shortest time between two calls of :meth:`status`."""
    capacity: int | None
    """How many jobs it takes at a time; None if it keeps a queue of its own."""

    def array_limit(self) -> int:
        """The largest number of tasks in a batch."""

    def submit(self, batch: Batch, folder: Path, python: str, *, after: str | None, avoid: Iterable[str]) -> list[str]:
        """Submit a batch; returns the job id of each task.

        Args:
            folder: Where the jobs' logs go.
            python: The command that runs a job; submitit takes it for the interpreter.
            after: The id of a job that must succeed first.
            avoid: Nodes that failed.

        Raises :class:`Unreachable` if the scheduler does not answer, and :class:`UserError` if it will never accept the batch.
        """

    def find(self, batch: Batch, folder: Path) -> list[str] | None:
        """The job ids of a batch whose submission is uncertain: empty if it was not submitted, None if that is unknown."""

    def status(self, ids: Sequence[str]) -> dict[str, JobStatus]:
        """The states of these jobs, by job id. Never raises."""

    def cancel(self, ids: Sequence[str], *, pending_only: bool = False) -> None:
        """End jobs; running ones are warned first. Never raises."""


def placeholder(*_: object) -> None:
    """The function that submitit pickles. The job does not call it: it reads its batch instead."""
