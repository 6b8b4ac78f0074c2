"""Jobs without anybody watching: a whole sweep handed to Slurm at once, and jobs taken back."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.executors.jobs.executor import SubmititExecutor
from umd_bench.orchestration.executors.jobs.local import LocalQueue
from umd_bench.orchestration.executors.jobs.queue_contract import Queue
from umd_bench.orchestration.executors.jobs.records import JobRecords
from umd_bench.orchestration.executors.jobs.slurm import SlurmQueue
from umd_bench.orchestration.graph import Node
from umd_bench.store import RunDir, StageState

SUBMIT_SECONDS = 120.0  # for a scheduler that does not answer at once
CANCEL_SECONDS = 60.0  # for running jobs to save their state


@dataclass(frozen=True)
class HandedOver:
    """What became of a sweep's stages: submitted now, alive from before, left since ``max_submitted`` is reached."""

    submitted: int
    alive: int
    left: int


def hand_over(nodes: dict[str, Node], executor: SubmititExecutor) -> HandedOver:
    """Submit every stage that has no result, each behind its parent's job, and let go.

    A child begins when its parent's job ended well; where the parent leaves no result Slurm takes the child back. Raises
    :class:`UserError` when Slurm does not answer; what was submitted until then stands, and the same command goes on.
    """
    missing = [node for node in nodes.values() if node.state is not StageState.DONE]
    alive = executor.adopt([node.key for node in missing])
    todo = [node for node in missing if node.key not in alive]
    room = max(0, executor.slots - len(alive))
    left, todo = todo[room:], todo[:room]  # parents come before children, so none is left behind a child
    deadline = time.monotonic() + SUBMIT_SECONDS
    for level in _levels(todo):
        for node in level:
            RunDir(executor.root, node.key).prepare(node.spec)
            parent = nodes.get(node.spec.parent_key or "")
            executor.submit(node.key, after=parent.key if parent is not None and parent.state is not StageState.DONE else None)
        while executor.flush() or executor.unconfirmed():
            if time.monotonic() > deadline:
                raise UserError("Slurm does not answer: not every stage could be submitted; the same command goes on from here")
            executor.poll(1.0)
    executor.detach()
    return HandedOver(len(todo), len(alive), len(left))


def cancel_jobs(root: Path, keys: Iterable[str]) -> tuple[int, int]:
    """Cancel the living jobs of these stages: how many ended, and how many still save their state.

    A job that runs other stages too is only asked to leave these out.
    """
    jobs, by_queue = JobRecords(root), dict[str, list[str]]()
    for claim in jobs.open_claims(keys):
        batch = jobs.read_batch(claim.batch)
        if batch is not None:
            by_queue.setdefault(batch.executor, []).append(claim.key)
    ended = busy = 0
    for name, mine in by_queue.items():
        config = ClusterConfig()
        queue: Queue = SlurmQueue(config, threads=1, status_seconds=1.0) if name == SlurmQueue.name else LocalQueue(1)
        executor = SubmititExecutor(root, root, queue, config, threads=1)
        waiting = executor.adopt(mine)
        for key in waiting:
            executor.cancel(key)
        deadline = time.monotonic() + CANCEL_SECONDS
        while waiting and time.monotonic() < deadline:
            found = {item.key for item in executor.poll(1.0)}
            ended += len(found)
            waiting -= found
        busy += len(waiting)
        executor.detach()
    return ended, busy


def _levels(nodes: list[Node]) -> list[list[Node]]:
    """Nodes by their distance from the first that is missing: what can be submitted at once."""
    depth: dict[str, int] = {}
    levels: list[list[Node]] = []
    for node in nodes:
        depth[node.key] = depth.get(node.spec.parent_key or "", -1) + 1
        if depth[node.key] == len(levels):
            levels.append([])
        levels[depth[node.key]].append(node)
    return levels
