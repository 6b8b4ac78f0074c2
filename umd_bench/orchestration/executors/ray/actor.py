"""The process that runs stages on Ray: an actor that imports torch once and then runs one stage after another.

Calls are numbered. A request to stop, and the address of rank 0, belong to one call, since a request may arrive before the
call's stage begins, or after it has ended and the actor has begun another.
"""

from __future__ import annotations

import queue
import threading
from pathlib import Path

import ray

from umd_bench.orchestration.stage_process.entry_point import RankLaunch, load_entry_point

CONCURRENCY_GROUPS = {"stage": 1, "control": 1, "address": 1}
"""Threads of an actor by purpose: while one runs the stage, the others receive ``stop`` and wait for the address."""


class StageActor:
    """One stage at a time, or another rank of a stage that a different actor runs."""

    def __init__(self, root: str, data_root: str, entry_point: str) -> None:
        self._run, self._root, self._data_root = load_entry_point(entry_point), Path(root), Path(data_root)
        self._stops: dict[int, threading.Event] = {}
        self._addresses: dict[int, queue.SimpleQueue[str]] = {}

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def node(self) -> str:
        """The id of the node on which the actor has started."""
        return str(ray.get_runtime_context().get_node_id())

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def stop(self, call: int) -> None:
        """Request that the stage of this call saves its state and ends."""
        self._stops.setdefault(call, threading.Event()).set()

    @ray.method(concurrency_group="stage")  # type: ignore[untyped-decorator]
    def run(self, key: str, call: int, size: int) -> None:
        """Run a stage on ``size`` devices. What the entry point returns stays in the actor, so it need not be picklable."""
        stop = self._stops.setdefault(call, threading.Event()).is_set
        try:
            # Also for one device: the stage keeps this number even if another command has since requested more.
            rank_launch = RankLaunch(ray.util.get_node_ip_address(), self._address_of(call).put, size)
            self._run(self._root, key, self._data_root, stop=stop, rank_launch=rank_launch)
        finally:
            del self._stops[call]
            if size > 1:
                self._address_of(call).put("")  # releases other ranks that still wait for the address

    @ray.method(concurrency_group="address")  # type: ignore[untyped-decorator]
    def address(self, call: int) -> str:
        """Wait for the address of rank 0 of this call's stage; empty if the stage ended before it had one."""
        return self._address_of(call).get()

    @ray.method(concurrency_group="stage")  # type: ignore[untyped-decorator]
    def follow(self, address: str, rank: int, local: int) -> None:
        """Be another rank of the stage whose rank 0 is at ``address``, on the ``local``-th of the GPUs that this actor sees."""
        from umd_bench.orchestration.stage_process.ranks import follow_stage

        if address:
            follow_stage(address, rank, local=local)

    def _address_of(self, call: int) -> queue.SimpleQueue[str]:
        return self._addresses.setdefault(call, queue.SimpleQueue())
