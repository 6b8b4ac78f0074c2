"""The contract of an executor.

An executor receives keys of stages and calls an entry point
(:func:`~umd_bench.orchestration.stage_process.run_stage.run_stage`) for each, in some process. When a key is submitted, its run
directory is prepared, and the weights that the stage starts from exist. (A stage that waits in Slurm for its parent's job is
the exception: :mod:`umd_bench.orchestration.detach`.) The executor reports only that a stage has ended. The scheduler reads the
result from the run directory.

1. *Every stage is returned once.* :meth:`Executor.poll` returns each submitted or adopted key exactly once, however the
   stage ends, unless ``close`` or ``detach`` is called first.
2. *Failures stay apart.* ``poll`` does not raise when a stage fails. A process that dies ends only the stages that it runs.
3. *A returned stage has ended.* No process works on it any more. ``Ended.reason`` is None if the stage finished or failed; its
   run directory says which. Otherwise it says why the stage's process ended, as far as that is known.
4. *Unknown is not dead.* If the cluster's scheduler fails, does not answer or does not list a job, no stage ends. A stage ends
   only if that scheduler says that its job is over, and no process holds the stage's lease.
5. *No job is lost, and no stage runs twice.* This concerns jobs that outlive the command. Each job is recorded before it is
   submitted and confirmed after, so a command that is killed at any moment leaves no unknown job. :meth:`Executor.adopt` finds
   the jobs of earlier commands, and ``poll`` returns their stages too. It leaves out jobs that are over: their run directories
   have the outcome. If two jobs still run the same stage, the lease lets only one of them work, and the first result
   counts.
6. *One stage can be cancelled.* ``cancel`` ends it; it saves its state if its process can still receive the request. ``poll``
   returns it with the reason ``cancelled``.
7. *Stopping saves work.* ``stop`` requests that every running stage saves its state at the next step and ends. No other stage
   starts. ``stop`` does not wait.
8. *Nothing is left behind.* ``close`` ends and frees everything that the executor started. ``detach`` frees the
   resources of this process, and lets jobs that outlive it continue. Both may be called twice, and in either order.
9. *Slots are stated.* ``slots`` is the number of stages, queued or running, that the executor takes at a time. The scheduler
   submits no more.
10. *One process per device.* An executor that starts all processes of a stage passes a
    :class:`~umd_bench.orchestration.stage_process.entry_point.RankLaunch`; its size applies even if a command has requested
    another number of devices since. Without a ``RankLaunch``, rank 0 starts the other ranks on its machine. If a rank is lost,
    the attempt ends as ``died``.
11. *The same bits everywhere.* A stage runs with its own ``resources.threads`` on every executor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable


class EndReason(StrEnum):
    """The reason why a stage's process ended."""

    OOM = "oom"  # the system or the scheduler: out of memory
    TIMEOUT = "timeout"  # the scheduler: out of time; the stage saved its state if it was warned
    PREEMPTED = "preempted"  # the scheduler: another job needs the node
    NODE_FAIL = "node_fail"  # its node was lost
    CANCELLED = "cancelled"  # a person, or the scheduler of stages
    ORPHANED = "orphaned"  # its job waited for its parent's job, which left no result, so the stage never began
    DIED = "died"  # unknown


# How many attempts of a stage may end for each reason within one command; after the last, the stage has failed.
# Each reason is counted separately. A stage that fails (a NaN, an error, a wrong setting) is not run again, since it would
# fail again. A stage whose parent has failed is not submitted.
MAX_ATTEMPTS: dict[EndReason, int] = {
    EndReason.OOM: 1,
    EndReason.TIMEOUT: 20,
    EndReason.PREEMPTED: 100,
    EndReason.NODE_FAIL: 5,
    EndReason.CANCELLED: 1,
    EndReason.ORPHANED: 100,
    EndReason.DIED: 3,
}


@dataclass(frozen=True)
class Ended:
    """The end of a stage. ``reason`` says why its process ended; it is None if the stage finished or failed.

    ``message`` is for a person.
    """

    key: str
    reason: EndReason | None = None
    message: str = ""


class Executor(Protocol):
    """Runs stages; the module's docstring lists its promises."""

    name: str
    slots: int

    def submit(self, key: str) -> None:
        """Start the stage as soon as there is room."""

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """Follow the jobs of these stages that an earlier process submitted and that may not be over; returns their keys."""

    def poll(self, timeout: float) -> list[Ended]:
        """The stages that ended since the last call; waits up to ``timeout`` seconds for the first."""

    def cancel(self, key: str) -> None:
        """End one stage. A key that was neither submitted nor adopted is ignored."""

    def stop(self) -> None:
        """Request that every running stage saves its state and ends; start no other."""

    def detach(self) -> None:
        """Free the resources of this process; jobs that can outlive it continue."""

    def close(self) -> None:
        """End and free everything."""


@runtime_checkable
class InCallersThread(Protocol):
    """An executor that runs stages in the thread that polls it.

    While a stage runs, the executor calls ``between_steps`` now and then. In this call the scheduler does its other work, and
    may call :meth:`Executor.cancel`. If the call raises, the stage saves its state and ends, and ``poll`` raises the error.
    """

    between_steps: Callable[[], None]
