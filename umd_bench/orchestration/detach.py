"""Jobs that no command waits for: submit a whole sweep to Slurm at once, and cancel jobs."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.orchestration.executors.jobs.executor import SubmititExecutor
from umd_bench.orchestration.executors.jobs.queues.contract import Queue
from umd_bench.orchestration.executors.jobs.queues.local import LocalQueue
from umd_bench.orchestration.executors.jobs.queues.slurm import SlurmQueue
from umd_bench.orchestration.executors.jobs.records import JobRecords
from umd_bench.orchestration.graph import Node
from umd_bench.store import RunDir, StageState

SUBMIT_SECONDS = 120.0  # to submit all stages; if Slurm has not confirmed all jobs by then, the command ends with an error
CANCEL_SECONDS = 60.0  # to wait for running jobs to save their state


@dataclass(frozen=True)
class HandedOver:
    """Numbers of stages: ``submitted`` now, ``alive`` in jobs of an earlier command, and ``left`` for a later command.

    Stages are left if ``max_submitted`` is reached.
    """

    submitted: int
    alive: int
    left: int


def hand_over(nodes: dict[str, Node], executor: SubmititExecutor) -> HandedOver:
    """Submit the stages without a result, as many as ``executor.slots`` allows, and return without waiting for their jobs.

    A stage whose parent has no result yet waits for the parent's job. It starts after that job has succeeded, and Slurm cancels
    it if the parent leaves no result. Raises :class:`UserError` if Slurm does not answer. The stages submitted until then stay
    submitted, and the same command, run again, submits the others.
    """
    missing = [node for node in nodes.values() if node.state is not StageState.DONE]
    alive = executor.adopt([node.key for node in missing])
    todo = [node for node in missing if node.key not in alive]
    room = max(0, executor.slots - len(alive))
    left, todo = todo[room:], todo[:room]  # parents come first, so no child is submitted without its parent
    deadline = time.monotonic() + SUBMIT_SECONDS
    for level in _levels(todo):
        for node in level:
            RunDir(executor.root, node.key).prepare(node.spec)
            parent = nodes.get(node.spec.parent_key or "")
            executor.submit(node.key, after=parent.key if parent is not None and parent.state is not StageState.DONE else None)
        while executor.flush() or executor.unconfirmed():
            if time.monotonic() > deadline:
                raise UserError(
                    "Slurm does not answer: not every stage could be submitted; the same command continues from here"
                )
            executor.poll(1.0)
    executor.detach()
    return HandedOver(len(todo), len(alive), len(left))


def cancel_jobs(root: Path, keys: Iterable[str]) -> tuple[int, int]:
    """Cancel the queued and running jobs of these stages.

    Returns how many of the stages ended, and how many are still saving their state.

    A job that also runs other stages continues with them.
    """
    jobs, by_queue = JobRecords(root), dict[str, list[str]]()
    for claim in jobs.open_claims(keys):
        batch = jobs.read_batch(claim.batch)
        if batch is not None:
            by_queue.setdefault(batch.executor, []).append(claim.key)
    ended = busy = 0
    for name, its_keys in by_queue.items():
        config = ClusterConfig()
        queue: Queue = SlurmQueue(config, threads=1, status_seconds=1.0) if name == SlurmQueue.name else LocalQueue(1)
        executor = SubmititExecutor(root, root, queue, config, threads=1)
        waiting = executor.adopt(its_keys)
        for key in waiting:
            executor.cancel(key)
        deadline = time.monotonic() + CANCEL_SECONDS
        while waiting and time.monotonic() < deadline:
            gone = {item.key for item in executor.poll(1.0)}
            ended += len(gone)
            waiting -= gone
        busy += len(waiting)
        executor.detach()
    return ended, busy


def _levels(nodes: list[Node]) -> list[list[Node]]:
    """The nodes in levels: each is one level below its parent if ``nodes`` has the parent, otherwise in the first level.

    Nodes of one level do not depend on each other.
    """
    depth: dict[str, int] = {}
    levels: list[list[Node]] = []
    for node in nodes:
        depth[node.key] = depth.get(node.spec.parent_key or "", -1) + 1
        if depth[node.key] == len(levels):
            levels.append([])
        levels[depth[node.key]].append(node)
    return levels
