"""Stages one after another in this process: the simplest executor, and the one to debug with."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from umd_bench.orchestration.executors.contract import Ended, EndReason
from umd_bench.orchestration.stage_process.entry_point import RUN_STAGE, load_entry_point
from umd_bench.orchestration.stage_process.stdout import copied_to_the_terminal, output_set_aside

LOOK_SECONDS = 0.5  # between two looks around while a stage runs
MOST_LOOKING = 0.05  # of the time


class InlineExecutor:
    """Runs a submitted stage inside :meth:`poll`; nothing outlives the process, so there is nothing to adopt.

    Whoever polls is called back between steps (:class:`~umd_bench.orchestration.executors.contract.InCallersThread`).
    """

    name = "inline"
    slots = 1

    def __init__(self, root: Path, data_root: Path, *, entry_point: str = RUN_STAGE) -> None:
        self._root, self._data_root = root, data_root
        self._run = load_entry_point(entry_point)
        self._queue: deque[str] = deque()
        self._cancelled: list[str] = []
        self._stopping = False
        self.between_steps: Callable[[], None] = lambda: None
        self._look_at = 0.0
        self._current: str | None = None
        self._ending = False
        self._raised: Exception | None = None

    def submit(self, key: str) -> None:
        """Queue the stage."""
        self._queue.append(key)

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """None: what this executor ran ended with its process."""
        return set()

    def poll(self, timeout: float) -> list[Ended]:
        """Run the oldest submitted stage to its end."""
        if self._cancelled:
            ended = [Ended(key, EndReason.CANCELLED, "cancelled before it began") for key in self._cancelled]
            self._cancelled.clear()
            return ended
        if not self._queue:
            return []
        key = self._current = self._queue.popleft()
        self._ending, self._look_at = False, time.monotonic() + LOOK_SECONDS
        try:
            with copied_to_the_terminal():
                self._run(self._root, key, self._data_root, stop=self._asked)
        except Exception as error:
            return [Ended(key, EndReason.DIED, f"{type(error).__name__}: {error}")]
        finally:
            self._current = None
        if self._raised is not None:
            raise self._raised
        return [Ended(key, EndReason.CANCELLED, "cancelled while it ran") if self._ending else Ended(key)]

    def _asked(self) -> bool:
        """Asked between steps: look around when it is time to, and say whether to stop."""
        begun = time.monotonic()
        if begun >= self._look_at and self._raised is None:
            try:
                with output_set_aside():
                    self.between_steps()
            except Exception as error:  # the caller's own, which the stage must not take for its failure
                self._raised = error
            took = time.monotonic() - begun
            self._look_at = begun + max(LOOK_SECONDS, took / MOST_LOOKING)
        return self._stopping or self._ending or self._raised is not None

    def cancel(self, key: str) -> None:
        """Take the stage out of the queue; one that runs is ended at its next step, where :attr:`between_steps` asks for it."""
        if key in self._queue:
            self._queue.remove(key)
            self._cancelled.append(key)
        self._ending = self._ending or key == self._current

    def stop(self) -> None:
        """The running stage ends at its next step boundary."""
        self._stopping = True

    def detach(self) -> None:
        """Nothing lives without this process: the same as :meth:`close`."""
        self.close()

    def close(self) -> None:
        """Forget what was not started."""
        self._queue.clear()
        self._cancelled.clear()
