"""An executor around another one (inline or Ray), to which it submits units: groups of stages of one shape.

Submitted stages wait here until the inner executor has room, so that more of them can join a unit. The oldest goes first,
together with others of its shape. The inner executor receives a unit's name in place of a stage's key. The promises of
:mod:`~umd_bench.orchestration.executors.contract` hold for every stage; a process that dies ends all stages of its unit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from umd_bench.engine.fusion.shape import shape_key
from umd_bench.orchestration.executors.contract import Ended, EndReason, Executor, InCallersThread
from umd_bench.orchestration.fusion.units import STOP_CHECK_SECONDS, Unit
from umd_bench.store import RunDir

CANCELLED_BEFORE, CANCELLED_WHILE = "cancelled before it began", "cancelled while it ran"


@dataclass
class _Submitted:
    """A stage or unit in the inner executor; ``attempts`` is the number of attempts that each stage had before, by key."""

    unit: Unit | None
    attempts: dict[str, int]
    cancelled: set[str] = field(default_factory=set)


class FusingExecutor:
    """``inner`` with units of at most ``sizes[shape]`` stages. Create it by :func:`fusing`."""

    def __init__(self, root: Path, inner: Executor, sizes: Mapping[str, int]) -> None:
        self._root, self._inner, self._sizes = root, inner, sizes
        self.name = inner.name
        self.slots = inner.slots * max(sizes.values(), default=1)
        self._pending: dict[str, str | None] = {}  # shape by key, oldest first
        self._submitted: dict[str, _Submitted] = {}
        self._never_began: list[Ended] = []
        self._owned: list[Ended] = []  # ended with their unit, but another process holds the lease
        self._stopping = False

    def submit(self, key: str) -> None:
        """Queue the stage; :meth:`poll` submits it when the inner executor has room."""
        self._pending[key] = shape_key(RunDir(self._root, key).config())

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """Follow the jobs that the inner executor can follow."""
        return self._inner.adopt(keys)

    def poll(self, timeout: float) -> list[Ended]:
        """Submit as many units as the inner executor has room for, and collect the stages that ended."""
        self._submit_pending()
        ended, self._never_began = self._never_began, []
        owned, self._owned = self._owned, []
        for item in self._inner.poll(0 if ended else timeout):
            owned += self._ended_stages(item)
        for item in (*owned, *self._left_early()):
            if item.reason is not None and RunDir(self._root, item.key).is_owned():
                self._owned.append(item)
            else:
                ended.append(item)
        if self._owned and not ended:
            time.sleep(min(timeout, STOP_CHECK_SECONDS))
        return ended

    def _submit_pending(self) -> None:
        if self._stopping:
            for key in [*self._pending]:
                self.cancel(key)
        while self._pending and len(self._submitted) < self._inner.slots:
            shape = next(iter(self._pending.values()))
            size = 1 if shape is None else self._sizes.get(shape, 1)
            alike = [key for key, other in self._pending.items() if other == shape][:size]
            for key in alike:
                del self._pending[key]
            unit = Unit.create(self._root, alike) if len(alike) > 1 else None
            name = alike[0] if unit is None else unit.name
            attempts = {key: max(RunDir(self._root, key).attempts(), default=0) for key in alike}
            self._submitted[name] = _Submitted(unit, attempts)
            self._inner.submit(name)

    def _ended_stages(self, item: Ended) -> list[Ended]:
        """How a unit's stages ended, without the stages that :meth:`_left_early` has already returned."""
        submitted = self._submitted.pop(item.key)
        if submitted.unit is None:
            return [item]
        submitted.unit.remove()
        return [self._ending(key, before, item, submitted) for key, before in submitted.attempts.items()]

    def _ending(self, key: str, before: int, item: Ended, submitted: _Submitted) -> Ended:
        if self._ended_itself(key, before):
            return Ended(key)
        if key in submitted.cancelled:
            return Ended(key, EndReason.CANCELLED, CANCELLED_WHILE if self._began(key, before) else CANCELLED_BEFORE)
        return Ended(key, item.reason, item.message)

    def _left_early(self) -> list[Ended]:
        """Cancelled stages that have ended, while the others of their unit continue."""
        ended = []
        for submitted in self._submitted.values():
            for key in [*submitted.cancelled]:
                before = submitted.attempts[key]
                if self._began(key, before) and not RunDir(self._root, key).is_owned():
                    submitted.cancelled.remove(key)
                    del submitted.attempts[key]
                    cancelled = Ended(key, EndReason.CANCELLED, CANCELLED_WHILE)
                    ended.append(Ended(key) if self._ended_itself(key, before) else cancelled)
        return ended

    def _began(self, key: str, before: int) -> bool:
        return max(RunDir(self._root, key).attempts(), default=0) > before

    def _ended_itself(self, key: str, before: int) -> bool:
        run = RunDir(self._root, key)
        return self._began(key, before) and (run.result() is not None or run.failure() is not None)

    def cancel(self, key: str) -> None:
        """A waiting stage never begins; a running one ends at its next step, and the others of its unit continue."""
        if key in self._pending:
            del self._pending[key]
            self._never_began.append(Ended(key, EndReason.CANCELLED, CANCELLED_BEFORE))
        for submitted in self._submitted.values():
            if key not in submitted.attempts:
                continue
            if submitted.unit is None:
                self._inner.cancel(key)
            else:
                submitted.cancelled.add(key)
                submitted.unit.request_stop(key)

    def stop(self) -> None:
        """Running stages end at their next step; waiting stages never begin, and the next poll returns them."""
        self._stopping = True
        self._inner.stop()

    def detach(self) -> None:
        """Detach the inner executor, and forget the units."""
        self._inner.detach()
        self._forget()

    def close(self) -> None:
        """End and free everything."""
        self._inner.close()
        self._forget()

    def _forget(self) -> None:
        for submitted in self._submitted.values():
            if submitted.unit is not None:
                submitted.unit.remove()
        self._submitted.clear()
        self._pending.clear()


class _InCallersThread(FusingExecutor):
    """Around an executor that calls back between steps."""

    def __init__(self, root: Path, inner: Executor, sizes: Mapping[str, int]) -> None:
        super().__init__(root, inner, sizes)
        self._in_thread: InCallersThread = inner  # type: ignore[assignment]

    @property
    def between_steps(self) -> Callable[[], None]:
        """The callback of the inner executor."""
        return self._in_thread.between_steps

    @between_steps.setter
    def between_steps(self, call: Callable[[], None]) -> None:
        self._in_thread.between_steps = call


def fusing(root: Path, inner: Executor, sizes: Mapping[str, int]) -> Executor:
    """Wrap ``inner``, whose entry point is RUN_UNIT; ``sizes`` is the largest number of stages in a unit, by shape."""
    return (_InCallersThread if isinstance(inner, InCallersThread) else FusingExecutor)(root, inner, sizes)
