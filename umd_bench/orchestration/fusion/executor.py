"""Stages that may be trained as one are given to an executor as one: a wrapper around inline and Ray.

What is submitted waits here until the executor has room, so that all that is ready by then is seen; the oldest goes first, with
those of its shape. The executor knows nothing of it: it runs a unit's name as it runs a key. The promises of
:mod:`~umd_bench.orchestration.executors.contract` hold for every stage; a process that dies ends all stages of its unit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from umd_bench.config.trial.fusion_shape import shape_of
from umd_bench.orchestration.executors.contract import Ended, EndReason, Executor, InCallersThread
from umd_bench.orchestration.fusion.units import LOOK_SECONDS, Unit
from umd_bench.store import RunDir

BEFORE, WHILE = "cancelled before it began", "cancelled while it ran"


@dataclass
class _Handed:
    """What was given to the executor under one name; ``attempts`` is how many each stage had before."""

    unit: Unit | None
    attempts: dict[str, int]
    cancelled: set[str] = field(default_factory=set)


class FusingExecutor:
    """``inner`` with units; ``sizes`` is how many stages of a shape are trained as one at most. Made by :func:`fusing`."""

    def __init__(self, root: Path, inner: Executor, sizes: Mapping[str, int]) -> None:
        self._root, self._inner, self._sizes = root, inner, sizes
        self.name = inner.name
        self.slots = inner.slots * max(sizes.values(), default=1)
        self._pending: dict[str, str | None] = {}  # shape by key, oldest first
        self._handed: dict[str, _Handed] = {}
        self._never_began: list[Ended] = []
        self._owned: list[Ended] = []  # whose unit is over, though somebody holds the lease
        self._stopping = False

    def submit(self, key: str) -> None:
        """Queue the stage; it is given on by the next poll."""
        self._pending[key] = shape_of(RunDir(self._root, key).config())

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """What the executor takes over."""
        return self._inner.adopt(keys)

    def poll(self, timeout: float) -> list[Ended]:
        """Give on what there is room for, and collect what ended, stage by stage."""
        self._hand_on()
        ended, self._never_began = self._never_began, []
        owned, self._owned = self._owned, []
        for item in self._inner.poll(0 if ended else timeout):
            owned += self._taken_apart(item)
        for item in (*owned, *self._left_early()):
            if item.reason is not None and RunDir(self._root, item.key).is_owned():
                self._owned.append(item)
            else:
                ended.append(item)
        if self._owned and not ended:
            time.sleep(min(timeout, LOOK_SECONDS))
        return ended

    def _hand_on(self) -> None:
        if self._stopping:
            for key in [*self._pending]:
                self.cancel(key)
        while self._pending and len(self._handed) < self._inner.slots:
            shape = next(iter(self._pending.values()))
            size = 1 if shape is None else self._sizes.get(shape, 1)
            alike = [key for key, other in self._pending.items() if other == shape][:size]
            for key in alike:
                del self._pending[key]
            unit = Unit.create(self._root, alike) if len(alike) > 1 else None
            name = alike[0] if unit is None else unit.name
            attempts = {key: max(RunDir(self._root, key).attempts(), default=0) for key in alike}
            self._handed[name] = _Handed(unit, attempts)
            self._inner.submit(name)

    def _taken_apart(self, item: Ended) -> list[Ended]:
        """What the end of a unit is for each of its stages that had not ended before."""
        handed = self._handed.pop(item.key)
        if handed.unit is None:
            return [item]
        handed.unit.remove()
        return [self._ending(key, before, item, handed) for key, before in handed.attempts.items()]

    def _ending(self, key: str, before: int, item: Ended, handed: _Handed) -> Ended:
        if self._ended_by_itself(key, before):
            return Ended(key)
        if key in handed.cancelled:
            return Ended(key, EndReason.CANCELLED, WHILE if self._began(key, before) else BEFORE)
        return Ended(key, item.reason, item.message)

    def _left_early(self) -> list[Ended]:
        """Stages that were cancelled and are out, while the others of their unit go on."""
        ended = []
        for handed in self._handed.values():
            for key in [*handed.cancelled]:
                before = handed.attempts[key]
                if self._began(key, before) and not RunDir(self._root, key).is_owned():
                    handed.cancelled.remove(key)
                    del handed.attempts[key]
                    ended.append(Ended(key) if self._ended_by_itself(key, before) else Ended(key, EndReason.CANCELLED, WHILE))
        return ended

    def _began(self, key: str, before: int) -> bool:
        return max(RunDir(self._root, key).attempts(), default=0) > before

    def _ended_by_itself(self, key: str, before: int) -> bool:
        run = RunDir(self._root, key)
        return self._began(key, before) and (run.result() is not None or run.failure() is not None)

    def cancel(self, key: str) -> None:
        """One that waits never begins; one that runs ends at its next step, and the others of its unit go on."""
        if key in self._pending:
            del self._pending[key]
            self._never_began.append(Ended(key, EndReason.CANCELLED, BEFORE))
        for handed in self._handed.values():
            if key not in handed.attempts:
                continue
            if handed.unit is None:
                self._inner.cancel(key)
            else:
                handed.cancelled.add(key)
                handed.unit.ask_to_stop(key)

    def stop(self) -> None:
        """What runs ends at its next step; what waits never begins, as the next poll says."""
        self._stopping = True
        self._inner.stop()

    def detach(self) -> None:
        """Let go of what the executor lets go of."""
        self._inner.detach()
        self._forget()

    def close(self) -> None:
        """End everything."""
        self._inner.close()
        self._forget()

    def _forget(self) -> None:
        for handed in self._handed.values():
            if handed.unit is not None:
                handed.unit.remove()
        self._handed.clear()
        self._pending.clear()


class _InCallersThread(FusingExecutor):
    """One whose executor calls back between steps."""

    def __init__(self, root: Path, inner: Executor, sizes: Mapping[str, int]) -> None:
        super().__init__(root, inner, sizes)
        self._looking: InCallersThread = inner  # type: ignore[assignment]

    @property
    def between_steps(self) -> Callable[[], None]:
        """The executor's own."""
        return self._looking.between_steps

    @between_steps.setter
    def between_steps(self, call: Callable[[], None]) -> None:
        self._looking.between_steps = call


def fusing(root: Path, inner: Executor, sizes: Mapping[str, int]) -> Executor:
    """``inner``, started with :data:`~umd_bench.orchestration.fusion.units.RUN_UNIT`, with units of these sizes by shape."""
    return (_InCallersThread if isinstance(inner, InCallersThread) else FusingExecutor)(root, inner, sizes)
