"""Stages on warm Ray actors: each imports torch once and then runs one stage after another.

The machine's cores, or the cluster's, are divided among the actors: as many as have room, unless told otherwise. A stage goes
only to an actor that has begun, so that one that waits for room in vain holds nothing up. How a Ray comes to be is in
:mod:`~umd_bench.orchestration.executors.ray.cluster`.
"""

from __future__ import annotations

import contextlib
import queue
import threading
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
from umd_bench.orchestration.executors.ray.cluster import OwnRay, Ray, RunningRay, what_there_is
from umd_bench.orchestration.stage_process.entry_point import RUN_STAGE, RankLaunch, load_entry_point
from umd_bench.store import RunDir

LOOK_SECONDS = 0.2  # between two looks at what may be lost
DOUBT_SECONDS = 30.0  # for Ray to say that a node is gone; the process there ends when its raylet does
NO_ROOM_SECONDS = 120.0  # without an actor or a place for one, after which the cluster is given up
BROKEN_STARTS = 3  # actors in a row that could not begin


class _Worker:
    """The actor: a process with torch imported, one stage at a time, and a second thread that hears ``stop``."""

    def __init__(self, root: str, data_root: str, entry_point: str) -> None:
        self._run, self._root, self._data_root = load_entry_point(entry_point), Path(root), Path(data_root)
        self._stopped: dict[int, threading.Event] = {}
        self._addresses: dict[int, queue.SimpleQueue[str]] = {}

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def begun(self) -> str:
        """The id of the node that the actor has come to be on."""
        return str(ray.get_runtime_context().get_node_id())

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def stop(self, call: int) -> None:
        """By the number of the call, since the word may arrive before the stage begins, or after it ended and began anew."""
        self._stopped.setdefault(call, threading.Event()).set()

    @ray.method(concurrency_group="stage")  # type: ignore[untyped-decorator]
    def run(self, key: str, call: int, size: int) -> None:
        """What it returns stays here, and need not be fit to be sent; ``call`` is a number that no other has."""
        stop = self._stopped.setdefault(call, threading.Event()).is_set
        try:
            # Of one, too: what runs has the devices that were asked for when it was submitted, whatever is asked for since.
            rank_launch = RankLaunch(ray.util.get_node_ip_address(), self._told(call).put, size)
            self._run(self._root, key, self._data_root, stop=stop, rank_launch=rank_launch)
        finally:
            del self._stopped[call]
            if size > 1:
                self._told(call).put("")  # for ranks that still wait for it

    @ray.method(concurrency_group="meeting")  # type: ignore[untyped-decorator]
    def address(self, call: int) -> str:
        """Where rank 0 of the stage is, once it is there; empty when it never comes to that."""
        return self._told(call).get()

    @ray.method(concurrency_group="stage")  # type: ignore[untyped-decorator]
    def follow(self, address: str, rank: int, local: int) -> None:
        """Be another rank of the stage whose rank 0 is at ``address``, on the ``local``-th of the GPUs that are seen here."""
        from umd_bench.orchestration.stage_process.ranks import follow_stage

        if address:
            follow_stage(address, rank, local=local)

    def _told(self, call: int) -> queue.SimpleQueue[str]:
        return self._addresses.setdefault(call, queue.SimpleQueue())


@dataclass
class _Lost:
    """A stage whose actor does not answer: nobody may run it before it is sure that its process is gone."""

    key: str
    node: str
    error: Exception
    since: float


class RayExecutor:
    """A pool of ``workers`` actors, ``devices`` for a stage at most; a dead one is replaced and its stage reported as died, or
    as lost with its node."""

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
        self._running: dict[Any, tuple[str, Any, int]] = {}
        self._following: dict[Any, Any] = {}  # actors that are other ranks of a stage
        self._calls = 0
        self._starting: dict[Any, Any] = {}
        self._idle: list[Any] = []
        self._nodes: dict[Any, str] = {}
        self._lost: list[_Lost] = []
        self._dead: list[Any] = []  # to be replaced, once the head answers: a question to one that is gone would not return
        self._cancelled: set[str] = set()
        self._never_began: list[Ended] = []
        self._broken = 0
        self._no_room_since: float | None = None
        self._stopping = False
        self._ray: Ray
        if config.address is None:
            self._ray = OwnRay(cpus=workers * threads, threads=threads)
        else:
            code = freeze_code(code_folder(self._root))
            self._ray = RunningRay(config.address, code=code, threads=threads)
        try:
            self._gpus = config.gpus or 0.0
            if isinstance(self._ray, RunningRay):
                self._ray.require_said(config.gpus)
            elif isinstance(self._ray, OwnRay) and config.gpus is None:
                self._gpus = min(1.0, int(self._ray.gpus() / workers * 1e4) / 1e4)
            actors = min(workers, self._room())
            self.slots = actors // devices  # side by side as asked for, so that a search's trainings make way for their rungs
            if isinstance(self._ray, RunningRay):
                self._ray.check_nodes(self._root, data_root.resolve())
            for _ in range(actors):
                self._start_actor()
        except BaseException:
            self._ray.close()
            raise

    def _room(self) -> int:
        """How many stages fit at a time; :class:`UserError` where not even one does, since it would wait for ever."""
        room = self._ray.room(self._threads, self._gpus)
        if 0 < room < self._devices:
            raise UserError(
                f"this Ray has room for {room} processes of {self._threads} CPUs and {self._gpus:g} GPUs, and a stage takes "
                f"{self._devices}: there is {what_there_is()}; change resources.devices"
            )
        if self._devices > 1 and 0 < self._gpus < 1:
            raise UserError(
                f"a stage on {self._devices} devices takes a whole GPU for each, found {self._gpus:g}: change --workers or "
                "--gpus-per-stage"
            )
        if room == 0:
            raise UserError(
                f"no node of this Ray has room for a stage of {self._threads} CPUs and {self._gpus:g} GPUs: there is "
                f"{what_there_is()}; change resources.threads or --gpus-per-stage"
            )
        return room

    def _start_actor(self) -> None:
        options: dict[str, Any] = {
            "num_cpus": self._threads,
            "num_gpus": self._gpus,
            "concurrency_groups": {"stage": 1, "control": 1, "meeting": 1},
        }
        if self._ray.environment:
            options["runtime_env"] = {"env_vars": self._ray.environment}
        actor = ray.remote(**options)(_Worker).remote(*self._arguments)
        self._starting[actor.begun.remote()] = actor

    def submit(self, key: str) -> None:
        """Give the stage to an idle actor, or queue it."""
        self._queue.append(key)
        self._dispatch()

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """None: the actors end with the process that started them."""
        return set()

    def _dispatch(self) -> None:
        while self._queue and self._idle and not self._stopping:
            devices = self._devices_of(self._queue[0])
            if devices > len(self._idle):  # what is behind it waits too, or it might never have them all
                return
            key = self._queue.popleft()
            first, *others = (self._idle.pop() for _ in range(devices))
            self._calls += 1
            self._running[first.run.remote(key, self._calls, devices)] = (key, first, self._calls)
            address = first.address.remote(self._calls) if others else None
            for rank, actor in enumerate(others, 1):
                local = rank if self._gpus == 0 else 0  # an actor that asks for GPUs sees no other's
                self._following[actor.follow.remote(address, rank, local)] = actor

    def _devices_of(self, key: str) -> int:
        return 1 if self._devices == 1 else RunDir(self._root, key).config().devices

    def poll(self, timeout: float) -> list[Ended]:
        """Collect the stages whose actor returned or died; raises :class:`UserError` when the cluster is lost."""
        deadline = time.monotonic() + timeout
        while True:
            self._ray.check()
            self._replace_dead()
            ended, self._never_began = self._never_began, []
            ended += self._settle_lost()
            left = 0.0 if ended else max(0.0, deadline - time.monotonic())
            watched = [*self._running, *self._following, *self._starting]
            if watched:
                first, _ = ray.wait(watched, num_returns=1, timeout=min(left, LOOK_SECONDS if self._lost else left))
                ready, _ = ray.wait(watched, num_returns=len(watched), timeout=0) if first else ([], [])
            else:
                ready = []
                time.sleep(min(left, LOOK_SECONDS))
            for reference in ready:
                if reference in self._starting:
                    self._take_in(reference)
                elif reference in self._following:
                    self._let_go(reference)
                else:
                    ended += self._collect(reference)
            self._dispatch()
            self._refuse_for_ever()
            if ended or time.monotonic() >= deadline or not (self._running or self._queue or self._lost):
                return ended

    def _take_in(self, reference: Any) -> None:
        """An actor has begun, or could not."""
        actor = self._starting.pop(reference)
        try:
            self._nodes[actor] = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._broken += 1
            if self._broken >= BROKEN_STARTS:
                raise UserError(f"Ray's workers do not begin: {' '.join(str(error).split())}") from error
            self._dead.append(actor)
        else:
            self._broken = 0
            self._idle.append(actor)

    def _collect(self, reference: Any) -> list[Ended]:
        key, actor, _ = self._running.pop(reference)
        try:
            ray.get(reference)
        except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
            self._lost.append(_Lost(key, self._nodes.pop(actor), error, time.monotonic()))
            self._dead.append(actor)
            return []
        except ray.exceptions.RayError as error:
            ended = Ended(key, EndReason.DIED, str(error).strip().splitlines()[-1])
        else:
            ended = Ended(key, EndReason.CANCELLED, "cancelled while it ran") if key in self._cancelled else Ended(key)
        self._cancelled.discard(key)
        self._idle.append(actor)
        return [ended]

    def _let_go(self, reference: Any) -> None:
        """Another rank is through; what became of the stage is rank 0's to say."""
        actor = self._following.pop(reference)
        try:
            ray.get(reference)
        except ray.exceptions.RayTaskError:
            self._idle.append(actor)
        except ray.exceptions.RayError:  # its process ended, or rank 0's did before it gave the address
            self._nodes.pop(actor)
            self._dead.append(actor)
        else:
            self._idle.append(actor)

    def _replace_dead(self) -> None:
        while self._dead and self._ray.answers():
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(self._dead.pop())
            self._start_actor()

    def _settle_lost(self) -> list[Ended]:
        """Report what was lost, once its kind is known and nobody holds the stage's lease."""
        ended = []
        for lost in list(self._lost):
            sure = not isinstance(lost.error, ray.exceptions.ActorUnavailableError)
            late = time.monotonic() - lost.since > DOUBT_SECONDS
            gone = not self._ray.alive(lost.node)
            if not (gone or sure or late) or RunDir(self._root, lost.key).is_owned():
                continue
            self._lost.remove(lost)
            self._cancelled.discard(lost.key)
            kind = EndReason.NODE_FAIL if gone else _kind(lost.error)
            what = "its Ray node was lost" if gone else "worker process ended"
            ended.append(Ended(lost.key, kind, f"{type(lost.error).__name__}: {what} while it ran the stage"))
        return ended

    def _refuse_for_ever(self) -> None:
        """Give a cluster up that has lost so many nodes that nothing of it is left, and gets none back."""
        busy = self._running or self._following or self._lost or self._stopping or not self._queue
        if busy or self._ray.room(self._threads, self._gpus) >= self._devices_of(self._queue[0]) or not self._ray.answers():
            self._no_room_since = None
            return
        now = time.monotonic()
        self._no_room_since = self._no_room_since or now
        if now - self._no_room_since > NO_ROOM_SECONDS:
            raise UserError(
                f"no node of the Ray cluster has room for a stage any more: there is {what_there_is()}; what was done is kept, "
                "and the same command goes on from there"
            )

    def cancel(self, key: str) -> None:
        """A queued stage never begins; a running one ends at its next step boundary."""
        if key in self._queue:
            self._queue.remove(key)
            self._never_began.append(Ended(key, EndReason.CANCELLED, "cancelled before it began"))
        for running, actor, call in self._running.values():
            if running == key:
                self._cancelled.add(key)
                actor.stop.remote(call)

    def stop(self) -> None:
        """Every running stage ends at its next step boundary; queued ones do not start."""
        self._stopping = True
        for key in list(self._queue):
            self.cancel(key)
        for _, actor, call in self._running.values():
            actor.stop.remote(call)

    def detach(self) -> None:
        """The actors are this process's own: the same as :meth:`close`."""
        self.close()

    def close(self) -> None:
        """End the actors, and the Ray too if it is our own."""
        self._ray.close()


def _kind(error: Exception) -> EndReason:
    """Ray ends a worker when the machine's memory runs short, and says so in its error."""
    short = isinstance(error, ray.exceptions.OutOfMemoryError) or "running low on memory" in str(error)
    return EndReason.OOM if short else EndReason.DIED
