"""What an executor promises.

An executor takes keys of stages whose run directory is prepared and whose parent is done, and runs
:func:`umd_bench.orchestration.stage_process.run_stage.run_stage` for each in some process. It carries no results: what
happened stands in the
run directory, and the runner reads it there. Its promises:

1. *Once.* Every key that was submitted or adopted is returned by :meth:`Executor.poll` exactly once, whatever became of it,
   unless ``close`` or ``detach`` came first.
2. *Alone.* ``poll`` never raises for a stage's failure, and a process that dies ends its own stages only.
3. *Ended means ended.* ``Ended.reason`` is None when the stage ended by itself: then the run directory says how. Otherwise it
   names what took the process away, as far as that is known, and no process works on the stage any more.
4. *Unknown never means dead.* A status service that fails, is silent or has never heard of a job ends no stage: only a word
   that the job is over does, and only where nobody holds the stage's lease.
5. *Never twice.* Where jobs outlive the process that submitted them, each is written down before it is submitted and
   confirmed after, so that a kill at any moment leaves none behind unknown. :meth:`Executor.adopt` finds the living again and
   they are polled like those submitted here; what ended meanwhile is left to its run directory. Should two jobs of one stage
   meet in spite of it, the lease lets one work and the first result stays.
6. ``cancel`` ends one stage, its state saved where its process can hear; it is polled with the reason ``cancelled``.
7. ``stop`` asks all that runs to end at its next safe point with its state saved, starts nothing more, and does not wait.
8. ``close`` ends and frees everything the executor started; ``detach`` frees what this process holds and lets the jobs go on
   where they can. Either may be called twice, and after the other.
9. ``slots`` is how many stages it takes at a time, running or queued; what is beyond that is the runner's to hold back.
10. A stage on several devices has one process for each; an executor that starts them itself passes a
   :class:`~umd_bench.orchestration.stage_process.entry_point.RankLaunch`, whose size applies even if another number was
   requested since; otherwise rank 0 starts the others on its machine. A rank that is lost ends the attempt as ``died``.
11. A stage runs with its own ``resources.threads`` on every executor, so its bits do not depend on where it ran.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable


class EndReason(StrEnum):
    """What took a stage's process away."""

    OOM = "oom"  # the machine or the scheduler, for want of memory
    TIMEOUT = "timeout"  # the scheduler, for want of time; after a warning the stage saved its state
    PREEMPTED = "preempted"  # the scheduler, for the sake of others
    NODE_FAIL = "node_fail"
    CANCELLED = "cancelled"  # a person
    ORPHANED = "orphaned"  # submitted behind a parent that left no result: it never began
    DIED = "died"  # nobody knows


# How often a stage that ended in this way is tried again within one command, each kind counted for itself. What fails by
# itself (NaN, an error, a wrong request) would fail again and is not counted here at all. A stage whose parent failed is not
# tried but waits for it.
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
    """A stage is no longer running; ``reason`` says what took its process away, if something did, ``message`` in words."""

    key: str
    reason: EndReason | None = None
    message: str = ""


class Executor(Protocol):
    """See the module's text for the promises."""

    name: str
    slots: int

    def submit(self, key: str) -> None:
        """Start the stage as soon as there is room."""

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """Those of ``keys`` whose job, submitted by an earlier process, may still be queued or running."""

    def poll(self, timeout: float) -> list[Ended]:
        """Stages that ended since the last call; waits up to ``timeout`` seconds for the first."""

    def cancel(self, key: str) -> None:
        """End one stage; a key that is not known here is left alone."""

    def stop(self) -> None:
        """Ask what runs to save its state and end."""

    def detach(self) -> None:
        """Let go: what can live without this process does."""

    def close(self) -> None:
        """End and free everything."""


@runtime_checkable
class InCallersThread(Protocol):
    """An executor that holds the thread that polls it while a stage runs: between steps it calls this now and then.

    The caller may look around there, and :meth:`Executor.cancel` what runs. What it raises ends the stage, its state saved,
    and is raised by ``poll``.
    """

    between_steps: Callable[[], None]
