"""Stages one after another in this process: the simplest executor, and the one to debug with."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path

from umd_bench.orchestration.executors.contract import RUN_STAGE, Ended, Kind, stage_function
from umd_bench.orchestration.output import copied_to_the_terminal


class InlineExecutor:
    """Runs a submitted stage inside :meth:`poll`; nothing outlives the process, so there is nothing to adopt."""

    name = "inline"
    slots = 1

    def __init__(self, root: Path, data_root: Path, *, stage: str = RUN_STAGE) -> None:
        self._root, self._data_root = root, data_root
        self._run = stage_function(stage)
        self._queue: deque[str] = deque()
        self._cancelled: list[str] = []
        self._stopping = False

    def submit(self, key: str) -> None:
        """Queue the stage."""
        self._queue.append(key)

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """None: what this executor ran ended with its process."""
        return set()

    def poll(self, timeout: float) -> list[Ended]:
        """Run the oldest submitted stage to its end."""
        if self._cancelled:
            ended = [Ended(key, Kind.CANCELLED, "cancelled before it began") for key in self._cancelled]
            self._cancelled.clear()
            return ended
        if not self._queue:
            return []
        key = self._queue.popleft()
        try:
            with copied_to_the_terminal():
                self._run(self._root, key, self._data_root, stop=lambda: self._stopping)
        except Exception as error:
            return [Ended(key, Kind.DIED, f"{type(error).__name__}: {error}")]
        return [Ended(key)]

    def cancel(self, key: str) -> None:
        """Take the stage out of the queue; the one that runs holds this very thread."""
        if key in self._queue:
            self._queue.remove(key)
            self._cancelled.append(key)

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
