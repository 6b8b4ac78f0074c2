"""The only scheduler loop: submits stages whose parents are done, reads what became of them, decides what is tried again.

A stage that is a rung of a search begins when its weights are there, though its parent still trains. Where all slots are taken,
its parent makes way: it saves its state, and goes on when the rung has been looked at.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from umd_bench.orchestration.executors.contract import MAX_ATTEMPTS, Ended, EndReason, Executor, InCallersThread
from umd_bench.orchestration.graph import Node
from umd_bench.store import Failure, RunDir, StageState, stage_state

# The sweep stops when this many stages have failed, all alike, and none has succeeded.
SAME_FAILURES_TO_STOP = 3
INTERRUPTED, CANCELLED = "interrupted", "cancelled"  # why a sweep stops without a failure


@dataclass
class Progress:
    """Where a sweep stands; the same object is updated throughout and handed to ``on_change``, which may add to ``nodes``.

    It may also put keys into ``dropped``: such stages are ended, their state saved, and taken out of ``nodes``; those in
    ``held`` are not submitted for the time being.
    """

    nodes: dict[str, Node]
    reused: int
    dropped: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)
    failures: dict[str, Failure] = field(default_factory=dict)
    finished: int = 0
    stopped_because: str | None = None

    def count(self, state: StageState) -> int:
        """How many stages are in a state."""
        return sum(node.state is state for node in self.nodes.values())

    @property
    def complete(self) -> bool:
        """Whether every stage has its result."""
        return all(node.state is StageState.DONE for node in self.nodes.values())

    def has_input(self, root: Path, node: Node) -> bool:
        """Whether what the stage reads is there. A rung needs its weights alone, which a training keeps on its way.

        A parent that is not part of the graph was done before: the graph begins below it.
        """
        parent = self.nodes.get(node.spec.parent_key or "")
        if parent is None or parent.state is StageState.DONE:
            return True
        nimg = node.spec.parent_nimg
        return node.rung and nimg is not None and RunDir(root, parent.key).snapshot(nimg).exists()

    def block_below(self, root: Path, failed: str) -> None:
        """Nothing that needs a failed stage is begun; a rung that it came to is measured all the same.

        Otherwise it would be a matter of timing whether a search prunes what failed soon after.
        """
        for key in self.nodes[failed].children:
            if not self.has_input(root, self.nodes[key]):
                self.blocked.add(key)
                self.block_below(root, key)


class Runner:
    """Runs a graph of stages on an executor. ``on_change`` is called after every look at the executor."""

    def __init__(
        self,
        root: Path,
        nodes: dict[str, Node],
        executor: Executor,
        *,
        on_change: Callable[[Progress], None] = lambda progress: None,
        poll_seconds: float = 0.5,
        dropped: set[str] | None = None,
    ) -> None:
        self._root, self._nodes, self._executor = root, nodes, executor
        self._on_change, self._poll_seconds = on_change, poll_seconds
        self._submitted: set[str] = set()
        self._lost: Counter[tuple[str, EndReason]] = Counter()  # attempts that something else ended, by stage and kind
        self._asked_to_end: set[str] = set()  # by this runner, which is no failure
        self._stopping = False
        reused = sum(node.state is StageState.DONE for node in nodes.values())
        self.progress = Progress(nodes, reused, set() if dropped is None else dropped)
        if isinstance(executor, InCallersThread):
            executor.between_steps = self._look_around

    def run(self) -> Progress:
        """Work until nothing more can be done; failures are in the result, not raised.

        Jobs that an earlier command left alive are taken over first, so that none is submitted a second time.
        """
        self._adopt()
        while True:
            self._drop()
            self._make_way()
            self._submit_ready()
            if not self._submitted and not self._waiting_elsewhere():
                break
            for ended in self._executor.poll(self._poll_seconds) if self._submitted else self._wait():
                self._settle(ended)
            self._on_change(self.progress)
        self._on_change(self.progress)
        return self.progress

    def _look_around(self) -> None:
        """What is done between two polls, while one of them is under way; nothing is submitted."""
        self._on_change(self.progress)
        self._drop()
        self._make_way()

    def stop(self, because: str = INTERRUPTED) -> None:
        """Submit nothing more and ask what runs to save its state; :meth:`run` returns when it has."""
        if self._stopping:
            return
        self._stopping = True
        self.progress.stopped_because = because
        self._executor.stop()

    def _adopt(self) -> None:
        for key in self._executor.adopt([key for key, node in self._nodes.items() if node.state is not StageState.DONE]):
            self._nodes[key].state = StageState.RUNNING
            self._submitted.add(key)

    def _submit_ready(self) -> None:
        if self._stopping:
            return
        for node in (*self._rungs(), *self._nodes.values()):
            if len(self._submitted) >= self._executor.slots:
                return
            if node.state is StageState.DONE or not self._waits(node):  # first what costs least: all nodes are asked each time
                continue
            if node.state is StageState.RUNNING:  # another command's; its result will be ours too
                node.state = stage_state(RunDir(self._root, node.key), node.needed)
            if node.state in (StageState.DONE, StageState.RUNNING) or not self.progress.has_input(self._root, node):
                continue
            RunDir(self._root, node.key).prepare(node.spec)
            node.state = StageState.RUNNING
            self._submitted.add(node.key)
            self._executor.submit(node.key)

    def _waits(self, node: Node) -> bool:
        """Whether the stage is neither submitted nor out of the question."""
        progress = self.progress
        return not any(node.key in keys for keys in (self._submitted, progress.blocked, progress.failures, progress.held))

    def _rungs(self) -> list[Node]:
        return [node for node in self._nodes.values() if node.rung and node.state is not StageState.DONE and self._waits(node)]

    def _make_way(self) -> None:
        """Where no slot is free, ask as many trainings to save their state as have a rung that could be looked at."""
        if self._stopping or len(self._submitted) < self._executor.slots:
            return
        for node in self._rungs():
            parent = node.spec.parent_key
            if parent in self._submitted and parent not in self._asked_to_end and self.progress.has_input(self._root, node):
                self._asked_to_end.add(parent)
                self._executor.cancel(parent)

    def _drop(self) -> None:
        """End what is dropped and runs for this sweep, and take out of the graph what does not."""
        for key in self.progress.dropped & self._nodes.keys():
            if self._nodes[key].state is StageState.DONE:
                continue
            if key not in self._submitted:
                node = self._nodes.pop(key)
                self.progress.failures.pop(key, None)  # of before it was dropped: nobody needs it any more
                self.progress.blocked.discard(key)
                parent = self._nodes.get(node.spec.parent_key or "")
                if parent is not None:
                    parent.children.remove(key)
            elif key not in self._asked_to_end:
                self._asked_to_end.add(key)
                self._executor.cancel(key)

    def _waiting_elsewhere(self) -> bool:
        """Whether another command owns a stage that this sweep needs."""
        if self._stopping:
            return False
        return any(n.state is StageState.RUNNING and n.key not in self._submitted for n in self._nodes.values())

    def _wait(self) -> list[Ended]:
        time.sleep(self._poll_seconds)
        return []

    def _settle(self, ended: Ended) -> None:
        node = self._nodes[ended.key]
        self._submitted.discard(ended.key)
        run = RunDir(self._root, ended.key)
        node.state = stage_state(run, node.needed)
        asked = ended.key in self._asked_to_end
        self._asked_to_end.discard(ended.key)
        if node.state is StageState.DONE:
            self.progress.finished += 1
        elif ended.key in self.progress.dropped or (asked and ended.reason is EndReason.CANCELLED):
            node.state = StageState.INTERRUPTED
        elif ended.reason is not None:
            self._count(node, ended.reason, ended.message)
        elif node.state is StageState.FAILED:
            failure = run.failure()
            assert failure is not None
            self._fail(node, failure)

    def _count(self, node: Node, kind: EndReason, message: str) -> None:
        """One more attempt of this kind; the stage is ready again unless there have been enough of them."""
        self._lost[node.key, kind] += 1
        if node.state is StageState.FAILED:  # of an attempt before this one
            node.state = StageState.INTERRUPTED
        if self._lost[node.key, kind] >= MAX_ATTEMPTS[kind] and not self._stopping:
            times = "" if MAX_ATTEMPTS[kind] == 1 else f" ({MAX_ATTEMPTS[kind]} times)"
            failure = Failure(state=kind, message=f"{message}{times}", fingerprint=kind)
            RunDir(self._root, node.key).give_up(failure)
            self._fail(node, failure)

    def _fail(self, node: Node, failure: Failure) -> None:
        node.state = StageState.FAILED
        self.progress.failures[node.key] = failure
        self.progress.block_below(self._root, node.key)
        prints = [f.fingerprint for f in self.progress.failures.values()]
        alike = len(prints) >= SAME_FAILURES_TO_STOP and len(set(prints)) == 1
        if alike and self.progress.finished == 0 and not self._stopping:
            self.stop(f"the first {len(prints)} stages failed alike: {failure.headline}")


def explain(progress: Progress, again: str) -> tuple[list[str], int]:
    """Why a sweep is not complete, in lines, and the exit code: 130 when it was interrupted, else 1.

    ``again`` is the command that goes on from here.
    """
    lines = []
    groups: dict[str, list[str]] = {}
    for key, failure in progress.failures.items():
        groups.setdefault(failure.fingerprint, []).append(key)
    for keys in groups.values():
        failure, node = progress.failures[keys[0]], progress.nodes[keys[0]]
        more = f" and {len(keys) - 1} alike" if len(keys) > 1 else ""
        lines.append(f"failed ({failure.state}): {node.trials[0]} {node.name} [{node.key}]{more}: {failure.headline}")
    left = sum(node.state is not StageState.DONE for node in progress.nodes.values())
    reason = progress.stopped_because or "some stages failed"
    lines.append(f"{left} of {len(progress.nodes)} stages have no result ({reason}); `{again}` goes on from here")
    return lines, 130 if progress.stopped_because in (INTERRUPTED, CANCELLED) else 1
