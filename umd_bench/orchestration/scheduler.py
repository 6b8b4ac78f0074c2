"""The scheduler: the one loop that submits stages, reads how they ended, and decides which get another attempt.

It submits a stage once its parent is done. A rung of a search begins as soon as the weights that it reads exist, while its
parent may still be training. If all slots are taken, the scheduler interrupts the parent, so that the rung gets its slot. The
parent resumes when a slot is free again.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

from umd_bench.orchestration.executors.contract import MAX_ATTEMPTS, Ended, EndReason, Executor, InCallersThread
from umd_bench.orchestration.graph import Node, add_nodes
from umd_bench.orchestration.trial_source import SweepProgress, TrialSource
from umd_bench.store import Failure, RunDir, StageState, stage_state

# The sweep stops when this many stages have failed, all with the same fingerprint, and none has finished since its start.
SAME_FAILURES_TO_STOP = 3
INTERRUPTED, CANCELLED = "interrupted", "cancelled"  # reasons to stop that are not failures

Observer = Callable[[SweepProgress], None]


class Scheduler:
    """Runs the stages of a source's trials on an executor. Only the scheduler changes the graph and the states of its nodes."""

    def __init__(self, root: Path, source: TrialSource, *, poll_seconds: float = 0.5) -> None:
        """Take the source's first trials; nothing starts."""
        self._root, self._source, self._poll_seconds = root, source, poll_seconds
        self._nodes: dict[str, Node] = {}
        self._trials: dict[str, list[str]] = {}
        self._dropped, self._held, self._blocked = frozenset[str](), frozenset[str](), set[str]()
        self._failures: dict[str, Failure] = {}
        self._reused = self._finished = 0
        self._stopped_because: str | None = None

        self._executor: Executor | None = None
        self._submitted: set[str] = set()
        self._lost: Counter[tuple[str, EndReason]] = Counter()  # attempts that ended for a reason outside the stage
        self._cancel_requested: set[str] = set()  # stages that this scheduler cancels; their end is no failure
        self._observe: Observer = lambda progress: None
        self._update()

    @property
    def progress(self) -> SweepProgress:
        """The progress of the sweep."""
        return SweepProgress(
            nodes=MappingProxyType(self._nodes),
            trials=MappingProxyType(self._trials),
            failures=MappingProxyType(self._failures),
            blocked=self._blocked,
            reused=self._reused,
            finished=self._finished,
            stopped_because=self._stopped_because,
        )

    @property
    def missing(self) -> list[Node]:
        """The stages without a result."""
        return [node for node in self._nodes.values() if node.state is not StageState.DONE]

    @property
    def grows(self) -> bool:
        """Whether the source may add trials."""
        return self._source.grows

    def run(self, executor: Executor, *, observe: Observer = lambda progress: None) -> SweepProgress:
        """Run stages until none is left that can run. A failed stage raises nothing: the returned progress lists it.

        ``observe`` is called with the progress after every poll, and between the steps of a stage that runs in this thread.
        Jobs that an earlier command left alive are adopted first, so that no stage is submitted twice.
        """
        self._executor, self._observe = executor, observe
        if isinstance(executor, InCallersThread):
            executor.between_steps = self._react_between_steps
        self._adopt(executor)
        if self._stopping:  # by a signal between the executor's start and this call
            executor.stop()
        while True:
            self._drop(executor)
            self._make_way(executor)
            self._submit_ready(executor)
            if self._submitted:
                for ended in executor.poll(self._poll_seconds):
                    self._handle_end(ended)
                self._update()
            elif self._waiting_elsewhere():
                time.sleep(self._poll_seconds)
                self._update()
            elif not self._update():
                return self.progress

    def stop(self, because: str = INTERRUPTED) -> None:
        """Submit nothing more and ask running stages to save their state; :meth:`run` returns when they have."""
        if self._stopped_because is None:
            self._stopped_because = because
            if self._executor is not None:
                self._executor.stop()

    def _react_between_steps(self) -> None:
        """Between the steps of a stage that runs in this thread, do the scheduler's other work, but submit nothing."""
        assert self._executor is not None
        self._update()
        self._drop(self._executor)
        self._make_way(self._executor)

    def _update(self) -> bool:
        """Take up retried stages and the source's changes, then call the observer. Returns whether there is more to run."""
        more = self._take_up_retried()
        while self._apply_changes():
            more = True
        self._observe(self.progress)
        return more

    def _apply_changes(self) -> bool:
        """Apply one update of the source; returns whether it added stages."""
        changes = self._source.update(self.progress)
        self._dropped, self._held = frozenset(changes.dropped), frozenset(changes.held)
        if not changes.added:
            return False
        self._reused += sum(node.state is StageState.DONE for key, node in changes.added.items() if key not in self._nodes)
        add_nodes(self._root, self._nodes, changes.added)
        for key, node in changes.added.items():
            for trial in node.trials:
                keys = self._trials.setdefault(trial, [])
                if key not in keys:
                    keys.append(key)
        self._block_descendants()
        return True

    def _take_up_retried(self) -> bool:
        """Make failed stages that a person has retried ready again, with their descendants. Returns whether there were any."""
        retried = [key for key in self._failures if RunDir(self._root, key).was_retried()]
        for key in retried:
            del self._failures[key]
            self._nodes[key].state = StageState.INTERRUPTED
        if retried:
            self._blocked.clear()
            self._block_descendants()
        return bool(retried)

    def _adopt(self, executor: Executor) -> None:
        for key in executor.adopt([node.key for node in self.missing]):
            self._nodes[key].state = StageState.RUNNING
            self._submitted.add(key)

    def _submit_ready(self, executor: Executor) -> None:
        if self._stopping:
            return
        for node in (*self._rungs(), *self._nodes.values()):
            if len(self._submitted) >= executor.slots:
                return
            if node.state is StageState.DONE or not self._waits(node):  # cheap checks first, since every poll visits all nodes
                continue
            if node.state is StageState.RUNNING:  # in another command; this sweep will use its result
                node.state = stage_state(RunDir(self._root, node.key), node.needed)
            if node.state in (StageState.DONE, StageState.RUNNING) or not self._has_input(node):
                continue
            RunDir(self._root, node.key).prepare(node.spec)
            node.state = StageState.RUNNING
            self._submitted.add(node.key)
            executor.submit(node.key)

    @property
    def _stopping(self) -> bool:
        return self._stopped_because is not None

    def _waits(self, node: Node) -> bool:
        """Whether the stage may be submitted once its input exists."""
        return not any(node.key in keys for keys in (self._submitted, self._blocked, self._failures, self._held))

    def _rungs(self) -> list[Node]:
        return [node for node in self._nodes.values() if node.rung and node.state is not StageState.DONE and self._waits(node)]

    def _has_input(self, node: Node) -> bool:
        """Whether the parent has what the stage reads. A rung reads only a snapshot, which the training writes before it ends.

        A parent that is not in the graph is done, since the graph leaves out no other parents.
        """
        parent = self._nodes.get(node.spec.parent_key or "")
        if parent is None or parent.state is StageState.DONE:
            return True
        nimg = node.spec.parent_nimg
        return node.rung and nimg is not None and RunDir(self._root, parent.key).snapshot(nimg).exists()

    def _make_way(self, executor: Executor) -> None:
        """If no slot is free, interrupt every training whose rung waits to be measured. It saves its state and ends."""
        if self._stopping or len(self._submitted) < executor.slots:
            return
        for node in self._rungs():
            parent = node.spec.parent_key
            if parent in self._submitted and parent not in self._cancel_requested and self._has_input(node):
                self._cancel_requested.add(parent)
                executor.cancel(parent)

    def _drop(self, executor: Executor) -> None:
        """End the dropped stages that this scheduler submitted, and take the others out of the graph."""
        for key in self._dropped & self._nodes.keys():
            if self._nodes[key].state is StageState.DONE:
                continue
            if key not in self._submitted:
                node = self._nodes.pop(key)
                self._failures.pop(key, None)
                self._blocked.discard(key)
                parent = self._nodes.get(node.spec.parent_key or "")
                if parent is not None:
                    parent.children.remove(key)
            elif key not in self._cancel_requested:
                self._cancel_requested.add(key)
                executor.cancel(key)

    def _waiting_elsewhere(self) -> bool:
        """Whether another command owns a stage that this sweep needs."""
        if self._stopping:
            return False
        return any(n.state is StageState.RUNNING and n.key not in self._submitted for n in self._nodes.values())

    def _handle_end(self, ended: Ended) -> None:
        """Update the state of a stage that has ended: its run directory says how."""
        node = self._nodes[ended.key]
        self._submitted.discard(ended.key)
        run = RunDir(self._root, ended.key)
        node.state = stage_state(run, node.needed)
        cancelled = ended.key in self._cancel_requested
        self._cancel_requested.discard(ended.key)
        if node.state is StageState.DONE:
            self._finished += 1
        elif ended.key in self._dropped or (cancelled and ended.reason is EndReason.CANCELLED):
            node.state = StageState.INTERRUPTED
        elif ended.reason is not None:
            self._count_attempt(node, ended.reason, ended.message)
        elif node.state is StageState.FAILED:
            failure = run.failure()
            assert failure is not None
            self._fail(node, failure)

    def _count_attempt(self, node: Node, reason: EndReason, message: str) -> None:
        """Count an attempt that ended for this reason. At ``MAX_ATTEMPTS`` the stage fails; before, it may run again."""
        self._lost[node.key, reason] += 1
        if node.state is StageState.FAILED:  # the failure of an earlier attempt
            node.state = StageState.INTERRUPTED
        if self._lost[node.key, reason] >= MAX_ATTEMPTS[reason] and not self._stopping:
            times = "" if MAX_ATTEMPTS[reason] == 1 else f" ({MAX_ATTEMPTS[reason]} times)"
            failure = Failure(state=reason, message=f"{message}{times}", fingerprint=reason)
            RunDir(self._root, node.key).record_lost_failure(failure)
            self._fail(node, failure)

    def _fail(self, node: Node, failure: Failure) -> None:
        node.state = StageState.FAILED
        self._failures[node.key] = failure
        self._block_below(node.key)
        fingerprints = [f.fingerprint for f in self._failures.values()]
        alike = len(fingerprints) >= SAME_FAILURES_TO_STOP and len(set(fingerprints)) == 1
        if alike and self._finished == 0:
            self.stop(f"the first {len(fingerprints)} stages failed alike: {failure.headline}")

    def _block_descendants(self) -> None:
        for key in self._failures:
            self._block_below(key)

    def _block_below(self, failed: str) -> None:
        """Block every descendant of a failed stage, except a rung whose weights exist, which is still measured.

        Otherwise the timing would decide whether a search prunes a trial that fails soon after its rung.
        """
        for key in self._nodes[failed].children:
            if not self._has_input(self._nodes[key]):
                self._blocked.add(key)
                self._block_below(key)


def explain(progress: SweepProgress, again: str) -> tuple[list[str], int]:
    """Lines that say why a sweep is not complete, and the exit code: 130 if a person stopped it, else 1.

    ``again`` is the command that continues the sweep.
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
    lines.append(f"{left} of {len(progress.nodes)} stages have no result ({reason}); `{again}` continues from here")
    return lines, 130 if progress.stopped_because in (INTERRUPTED, CANCELLED) else 1
