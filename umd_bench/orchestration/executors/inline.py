"""Stages one after another in this process: the simplest executor, and the one to debug with."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

from umd_bench.orchestration.executors.contract import Ended, EndReason
from umd_bench.orchestration.stage_process.entry_point import RUN_STAGE, load_entry_point
from umd_bench.orchestration.stage_process.stdout import copied_to_the_terminal, output_set_aside

CALLBACK_SECONDS = 0.5  # between two calls of `between_steps` while a stage runs
MAX_CALLBACK_SHARE = 0.05  # of the time may go to these calls


class InlineExecutor:
    """Runs a submitted stage inside :meth:`poll`. Its stages end with this process, so there is nothing to adopt.

    It calls the polling code back between steps (:class:`~umd_bench.orchestration.executors.contract.InCallersThread`).
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
        self._callback_at = 0.0  # when `between_steps` is due
        self._callback_error: Exception | None = None
        self._running: str | None = None
        self._running_cancelled = False

    def submit(self, key: str) -> None:
        """Queue the stage."""
        self._queue.append(key)

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """Nothing: stages of an earlier process ended with it."""
        return set()

    def poll(self, timeout: float) -> list[Ended]:
        """Run the oldest submitted stage to its end."""
        if self._cancelled:
            ended = [Ended(key, EndReason.CANCELLED, "cancelled before it began") for key in self._cancelled]
            self._cancelled.clear()
            return ended
        if not self._queue:
            return []
        key = self._running = self._queue.popleft()
        self._running_cancelled, self._callback_at = False, time.monotonic() + CALLBACK_SECONDS
        try:
            with copied_to_the_terminal():
                self._run(self._root, key, self._data_root, stop=self._must_stop)
        except Exception as error:
            return [Ended(key, EndReason.DIED, f"{type(error).__name__}: {error}")]
        finally:
            self._running = None
        if self._callback_error is not None:
            raise self._callback_error
        return [Ended(key, EndReason.CANCELLED, "cancelled while it ran") if self._running_cancelled else Ended(key)]

    def _must_stop(self) -> bool:
        """Whether the stage must stop. The stage calls this between steps, so `between_steps` is called from here."""
        begun = time.monotonic()
        if begun >= self._callback_at and self._callback_error is None:
            try:
                with output_set_aside():
                    self.between_steps()
            except Exception as error:  # an error of the polling code, which must not count as the stage's failure
                self._callback_error = error
            seconds = time.monotonic() - begun
            self._callback_at = begun + max(CALLBACK_SECONDS, seconds / MAX_CALLBACK_SHARE)
        return self._stopping or self._running_cancelled or self._callback_error is not None

    def cancel(self, key: str) -> None:
        """Take a queued stage out of the queue; have the running one end at its next step."""
        if key in self._queue:
            self._queue.remove(key)
            self._cancelled.append(key)
        self._running_cancelled = self._running_cancelled or key == self._running

    def stop(self) -> None:
        """Have the running stage end at its next step."""
        self._stopping = True

    def detach(self) -> None:
        """The same as :meth:`close`, since no stage outlives this process."""
        self.close()

    def close(self) -> None:
        """Forget the queued stages."""
        self._queue.clear()
        self._cancelled.clear()
