"""What an executor promises.

An executor takes keys of stages whose run directory is prepared and whose parent is done, and runs
:func:`umd_bench.orchestration.worker.run_stage` for each in some process. It carries no results: what happened stands in the
run directory, and the runner reads it there. Its promises:

1. Every submitted key is returned by :meth:`Executor.poll` exactly once, whatever became of it, unless ``close`` came first.
2. ``poll`` never raises for a stage's failure, and a process that dies ends its own stage only.
3. ``Ended.died`` is set when the process went away without a word; otherwise the run directory says what happened.
4. ``stop`` asks running stages to end at their next safe point, with their state saved; it does not wait.
5. ``close`` frees everything the executor started, and may be called twice.
6. A stage runs with its own ``resources.threads`` on every executor, so its bits do not depend on where it ran.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Ended:
    """A stage is no longer running; ``died`` says how its process went away, if it did."""

    key: str
    died: str | None = None


class Executor(Protocol):
    """See the module's text for the promises."""

    name: str
    slots: int
    """How many stages run side by side; the runner keeps no more than this submitted."""

    def submit(self, key: str) -> None:
        """Start the stage as soon as there is room."""

    def poll(self, timeout: float) -> list[Ended]:
        """Stages that ended since the last call; waits up to ``timeout`` seconds for the first."""

    def stop(self) -> None:
        """Ask what runs to save its state and end."""

    def close(self) -> None:
        """Free everything."""
