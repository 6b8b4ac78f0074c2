"""Stages on a pool of warm Ray actors, which divide the cores of the machine or of the cluster.

The pool has as many actors as fit, at most as many as requested. It gives stages only to actors that have started, so an actor
that finds no free CPUs delays no stage.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from umd_bench.config.errors import UserError
from umd_bench.config.launch.ray import RayConfig
from umd_bench.orchestration.executors.contract import Ended, EndReason
from umd_bench.orchestration.executors.frozen_code import code_folder, freeze_code
from umd_bench.orchestration.executors.ray.actor import CONCURRENCY_GROUPS, StageActor
from umd_bench.orchestration.executors.ray.connection import RayConnection
from umd_bench.orchestration.executors.ray.lost_stages import LostStages
from umd_bench.orchestration.executors.ray.nodes import describe_nodes, one_line
from umd_bench.orchestration.executors.ray.private_ray import PrivateRay
from umd_bench.orchestration.executors.ray.running_ray import RunningRay
from umd_bench.orchestration.stage_process.entry_point import RUN_STAGE
from umd_bench.store import RunDir

POLL_LOST_SECONDS = 0.2  # between two checks of lost stages, and while no actor has work
NO_ROOM_SECONDS = 120.0  # without room for a single stage; then the command ends with an error
MAX_BROKEN_STARTS = 3  # actors in a row that could not start


@dataclass(frozen=True)
class _Call:
    """A stage that an actor runs; ``number`` identifies the call."""

    key: str
    actor: Any
    number: int


class RayExecutor:
    """A pool of ``workers`` actors. A stage takes one actor per device, at most ``devices``.

    A dead actor is replaced. Its stage ends with the reason ``died``, ``oom``, or ``node_fail`` if its node was lost.
    """

    name = "ray"

    def __init__(
        self,
        root: Path,
        data_root: Path,
        *,
        workers: int,
        threads: int,
        devices: int = 1,
        config: RayConfig | None = None,
        entry_point: str = RUN_STAGE,
    ) -> None:
        config = config or RayConfig()
        self._root = root.resolve()
        self._arguments = (str(self._root), str(data_root.resolve()), entry_point)
        self._threads, self._devices = threads, devices
        self._queue: deque[str] = deque()
        # Actors, and the object references that are ready when they return.
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._running: dict[Any, _Call] = {}
        self._following: dict[Any, Any] = {}  # actors that are another rank of a stage
        self._dead: list[Any] = []  # replaced once the head answers, since a call to a lost head would not return
        self._nodes: dict[Any, str] = {}  # node ids by actor
        self._calls = 0
        self._cancelled: set[str] = set()
        self._never_began: list[Ended] = []
        self._broken_starts = 0
        self._no_room_since: float | None = None
        self._stopping = False
        self._ray: RayConnection
        if config.address is None:
            self._ray = PrivateRay(cpus=workers * threads, threads=threads)
        else:
            self._ray = RunningRay(config.address, code=freeze_code(code_folder(self._root)), threads=threads)
        self._lost = LostStages(self._root, self._ray.alive)
        try:
            self._gpus = self._ray.gpus_per_stage(config.gpus, workers)
            actors = min(workers, self._room())
            self.slots = actors // devices  # as if every stage took all devices
            self._ray.check_nodes(self._root, data_root.resolve())
            for _ in range(actors):
                self._start_actor()
        except BaseException:
            self._ray.close()
            raise

    def _room(self) -> int:
        """How many actors fit; raises :class:`UserError` if they are too few for one stage, which would wait for ever."""
        room = self._ray.room(self._threads, self._gpus)
        if 0 < room < self._devices:
            raise UserError(
                f"this Ray has room for {room} processes of {self._threads} CPUs and {self._gpus:g} GPUs, and a stage takes "
                f"{self._devices}: there is {describe_nodes()}; change resources.devices"
            )
        if self._devices > 1 and 0 < self._gpus < 1:
            raise UserError(
                f"a stage on {self._devices} devices takes a whole GPU for each device, found {self._gpus:g}: change "
                "--workers or --gpus-per-stage"
            )
        if room == 0:
            raise UserError(
                f"no node of this Ray has room for a stage of {self._threads} CPUs and {self._gpus:g} GPUs: there is "
                f"{describe_nodes()}; change resources.threads or --gpus-per-stage"
            )
        return room

    def _start_actor(self) -> None:
        options: dict[str, Any] = {
            "num_cpus": self._threads,
            "num_gpus": self._gpus,
            "concurrency_groups": CONCURRENCY_GROUPS,
        }
        if self._ray.environment:
            options["runtime_env"] = {"env_vars": self._ray.environment}
        actor = ray.remote(**options)(StageActor).remote(*self._arguments)
        self._starting[actor.node.remote()] = actor

    def submit(self, key: str) -> None:
        """Give the stage to an idle actor, or queue it."""
        self._queue.append(key)
        self._dispatch()

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """Nothing: actors end with the process that started them."""
        return set()

    def _dispatch(self) -> None:
        """Start queued stages on idle actors, in order."""
        while self._queue and self._idle and not self._stopping:
            devices = self._devices_of(self._queue[0])
            if devices > len(self._idle):  # smaller stages behind it wait too, or it might never get all of its devices
                return
            key = self._queue.popleft()
            first, *others = (self._idle.pop() for _ in range(devices))
            self._calls += 1
            self._running[first.run.remote(key, self._calls, devices)] = _Call(key, first, self._calls)
            address = first.address.remote(self._calls) if others else None
            for rank, actor in enumerate(others, 1):
                local = rank if self._gpus == 0 else 0  # an actor that requests GPUs sees only its own
                self._following[actor.follow.remote(address, rank, local)] = actor

    def _devices_of(self, key: str) -> int:
        return 1 if self._devices == 1 else RunDir(self._root, key).config().devices

    def poll(self, timeout: float) -> list[Ended]:
        """Collect the stages whose actor returned or died; raises :class:`UserError` if the cluster is lost."""
        deadline = time.monotonic() + timeout
        while True:
            self._ray.check()
            self._replace_dead()
            ended, self._never_began = self._never_began, []
            ended += self._collect_lost()
            left = 0.0 if ended else max(0.0, deadline - time.monotonic())
            for reference in self._wait(left):
                if reference in self._starting:
                    self._add_started(reference)
                elif reference in self._following:
                    self._release(reference)
                else:
                    ended += self._collect(reference)
            self._dispatch()
            self._give_up_without_room()
            if ended or time.monotonic() >= deadline or not (self._running or self._queue or self._lost):
                return ended

    def _wait(self, seconds: float) -> list[Any]:
        """Wait until a call of an actor returns, for at most ``seconds``; the references of all calls that have returned."""
        watched = [*self._running, *self._following, *self._starting]
        if not watched:
            time.sleep(min(seconds, POLL_LOST_SECONDS))
            return []
        first, _ = ray.wait(watched, num_returns=1, timeout=min(seconds, POLL_LOST_SECONDS if self._lost else seconds))
        return list(ray.wait(watched, num_returns=len(watched), timeout=0)[0]) if first else []

    def _add_started(self, reference: Any) -> None:
        """Add an actor that has started to the idle ones. One that could not start is replaced, up to ``MAX_BROKEN_STARTS``."""
        actor = self._starting.pop(reference)
        try:
            self._nodes[actor] = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._broken_starts += 1
            if self._broken_starts >= MAX_BROKEN_STARTS:
                raise UserError(f"Ray's workers do not start: {one_line(error)}") from error
            self._dead.append(actor)
        else:
            self._broken_starts = 0
            self._idle.append(actor)

    def _collect(self, reference: Any) -> list[Ended]:
        """The stage of an actor that has returned; none yet if the actor is lost."""
        call = self._running.pop(reference)
        try:
            ray.get(reference)
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            self._lost.add(call.key, self._nodes.pop(call.actor), error)
            self._dead.append(call.actor)
            return []
        except ray.exceptions.RayError as error:
            ended = Ended(call.key, EndReason.DIED, str(error).strip().splitlines()[-1])
        else:
            cancelled = call.key in self._cancelled
            ended = Ended(call.key, EndReason.CANCELLED, "cancelled while it ran") if cancelled else Ended(call.key)
        self._cancelled.discard(call.key)
        self._idle.append(call.actor)
        return [ended]

    def _release(self, reference: Any) -> None:
        """Take back an actor whose rank has returned; rank 0 reports how the stage ended."""
        actor = self._following.pop(reference)
        try:
            ray.get(reference)
        except ray.exceptions.RayTaskError:
            self._idle.append(actor)
        except ray.exceptions.RayError:  # its process ended, or rank 0's did before it had an address
            self._nodes.pop(actor)
            self._dead.append(actor)
        else:
            self._idle.append(actor)

    def _replace_dead(self) -> None:
        while self._dead and self._ray.answers():
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(self._dead.pop())
            self._start_actor()

    def _collect_lost(self) -> list[Ended]:
        ended = self._lost.take_ended()
        self._cancelled -= {item.key for item in ended}
        return ended

    def _give_up_without_room(self) -> None:
        """Raise :class:`UserError` if no stage fits on the nodes that are left, and no lost node comes back in time."""
        busy = self._running or self._following or self._lost or self._stopping or not self._queue
        if busy or self._ray.room(self._threads, self._gpus) >= self._devices_of(self._queue[0]) or not self._ray.answers():
            self._no_room_since = None
            return
        now = time.monotonic()
        self._no_room_since = self._no_room_since or now
        if now - self._no_room_since > NO_ROOM_SECONDS:
            raise UserError(
                f"no node of the Ray cluster has room for a stage any more: there is {describe_nodes()}; finished stages "
                "and checkpoints remain, and the same command continues from them"
            )

    def cancel(self, key: str) -> None:
        """A queued stage does not start; a running one ends at its next step."""
        if key in self._queue:
            self._queue.remove(key)
            self._never_began.append(Ended(key, EndReason.CANCELLED, "cancelled before it began"))
        for call in self._running.values():
            if call.key == key:
                self._cancelled.add(key)
                call.actor.stop.remote(call.number)

    def stop(self) -> None:
        """Every running stage ends at its next step; queued ones do not start."""
        self._stopping = True
        for key in list(self._queue):
            self.cancel(key)
        for call in self._running.values():
            call.actor.stop.remote(call.number)

    def detach(self) -> None:
        """The same as :meth:`close`, since actors end with this process."""
        self.close()

    def close(self) -> None:
        """End the actors, and Ray itself if it is private."""
        self._ray.close()
