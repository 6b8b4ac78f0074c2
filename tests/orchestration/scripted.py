"""An executor that runs scripts instead of stages, to test the scheduler's rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from umd_bench.orchestration.executors.contract import Ended, EndReason
from umd_bench.store import Failure, RunDir

Script = Callable[[RunDir, int], EndReason | None]
"""(run directory, earlier attempts of this stage) -> why its process ended, or None if the stage itself ended."""


def succeed(run: RunDir, tries: int) -> None:
    """The stage finishes with a result."""
    with run.begin() as attempt:
        attempt.finish({"metrics": {}, "cost": {"seconds": 1.0}, "data": {"digest": ""}})


def fail_with(message: str, state: str = "error") -> Script:
    """The stage fails with an error of its own."""

    def script(run: RunDir, tries: int) -> None:
        with run.begin() as attempt:
            attempt.fail(Failure(state=state, message=message, fingerprint=message))

    return script


def end_by(kind: EndReason) -> Script:
    """Something other than the stage ends its process."""

    def script(run: RunDir, tries: int) -> EndReason:
        with run.begin():
            return kind

    return script


die = end_by(EndReason.DIED)
"""The process disappears without a message."""


class ScriptedExecutor:
    """Runs the script of each key (default: ``succeed``); ``submitted`` lists the submitted keys in order."""

    name = "scripted"

    def __init__(self, root: Path, scripts: dict[str, Script] | None = None, *, slots: int = 2) -> None:
        self.slots = slots
        self.submitted: list[str] = []
        self.most_at_once = 0
        self.stopped = False
        self._root, self._scripts = root, scripts or {}
        self._queue: list[str] = []
        self.left_alive: set[str] = set()

    def submit(self, key: str) -> None:
        self.submitted.append(key)
        self._queue.append(key)
        self.most_at_once = max(self.most_at_once, len(self._queue))

    def adopt(self, keys: Iterable[str]) -> set[str]:
        adopted = self.left_alive & set(keys)
        self._queue.extend(sorted(adopted))
        return adopted

    def poll(self, timeout: float) -> list[Ended]:
        if not self._queue:
            return []
        key = self._queue.pop(0)
        script: Script = self._scripts.get(key, succeed)
        kind = script(RunDir(self._root, key), self.submitted.count(key) - 1)
        return [Ended(key, kind, "killed" if kind else "")]

    def cancel(self, key: str) -> None:
        pass

    def stop(self) -> None:
        self.stopped = True

    def detach(self) -> None:
        pass

    def close(self) -> None:
        pass
