"""An executor that follows a script instead of running stages, for the runner's rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from umd_bench.orchestration.executors.contract import Ended
from umd_bench.store import Failure, RunDir

Script = Callable[[RunDir, int], str | None]
"""(run directory, how often this stage was submitted before) -> how its process died, or None when it ended by itself."""


def succeed(run: RunDir, tries: int) -> None:
    """The stage finishes with a result."""
    with run.begin() as attempt:
        attempt.finish({"metrics": {}, "cost": {"seconds": 1.0}, "data": {"digest": ""}})


def fail_with(message: str, state: str = "error") -> Script:
    """The stage fails by itself."""

    def script(run: RunDir, tries: int) -> None:
        with run.begin() as attempt:
            attempt.fail(Failure(state=state, message=message, fingerprint=message))

    return script


def die(run: RunDir, tries: int) -> str:
    """The process goes away without a word."""
    with run.begin():
        return "killed"


class ScriptedExecutor:
    """Runs scripts by key, ``succeed`` where there is none; remembers what was submitted, in order."""

    name = "scripted"

    def __init__(self, root: Path, scripts: dict[str, Script] | None = None, *, slots: int = 2) -> None:
        self.slots = slots
        self.submitted: list[str] = []
        self.most_at_once = 0
        self.stopped = False
        self._root, self._scripts = root, scripts or {}
        self._queue: list[str] = []

    def submit(self, key: str) -> None:
        self.submitted.append(key)
        self._queue.append(key)
        self.most_at_once = max(self.most_at_once, len(self._queue))

    def poll(self, timeout: float) -> list[Ended]:
        if not self._queue:
            return []
        key = self._queue.pop(0)
        script: Script = self._scripts.get(key, succeed)
        return [Ended(key, script(RunDir(self._root, key), self.submitted.count(key) - 1))]

    def stop(self) -> None:
        self.stopped = True

    def close(self) -> None:
        pass
