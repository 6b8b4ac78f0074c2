"""Stages one after another in this process: the simplest executor, and the one to debug with."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from umd_bench.orchestration.executors.contract import Ended
from umd_bench.orchestration.worker import run_stage


class InlineExecutor:
    """Runs a submitted stage inside :meth:`poll`."""

    name = "inline"
    slots = 1

    def __init__(self, root: Path, data_root: Path) -> None:
        self._root, self._data_root = root, data_root
        self._queue: deque[str] = deque()
        self._stopping = False

    def submit(self, key: str) -> None:
        """Queue the stage."""
        self._queue.append(key)

    def poll(self, timeout: float) -> list[Ended]:
        """Run the oldest submitted stage to its end."""
        if not self._queue:
            return []
        key = self._queue.popleft()
        run_stage(self._root, key, self._data_root, stop=lambda: self._stopping)
        return [Ended(key)]

    def stop(self) -> None:
        """The running stage ends at its next step boundary."""
        self._stopping = True

    def close(self) -> None:
        """Forget what was not started."""
        self._queue.clear()
