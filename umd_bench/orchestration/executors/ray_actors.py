"""Stages on warm Ray actors: each imports torch once and then runs one stage after another.

A local Ray is started for the command, on loopback, in a temporary folder of its own, and ended with it; two commands on one
machine have a Ray each. The machine's cores are divided among the actors: ``cores // threads`` of them unless told otherwise.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray

from umd_bench.config.errors import UserError
from umd_bench.orchestration.executors.contract import RUN_STAGE, Beside, Ended, Kind, stage_function
from umd_bench.store import RunDir


class _Worker:
    """The actor: a process with torch imported, one stage at a time, and a second thread that hears ``stop``."""

    def __init__(self, root: str, data_root: str, stage: str) -> None:
        self._run, self._root, self._data_root = stage_function(stage), Path(root), Path(data_root)
        self._stopped: dict[str, threading.Event] = {}
        self._addresses: dict[int, queue.SimpleQueue[str]] = {}

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def stop(self, key: str) -> None:
        """By key, since the word may arrive before the stage begins or after it ended."""
        self._stopped.setdefault(key, threading.Event()).set()

    @ray.method(concurrency_group="stage")  # type: ignore[untyped-decorator]
    def run(self, key: str, call: int | None = None) -> None:
        """What it returns stays here, and need not be fit to be sent; ``call`` numbers a stage on several devices."""
        stop = self._stopped.setdefault(key, threading.Event()).is_set
        try:
            if call is None:
                self._run(self._root, key, self._data_root, stop=stop)
            else:
                beside = Beside(ray.util.get_node_ip_address(), self._told(call).put)
                self._run(self._root, key, self._data_root, stop=stop, beside=beside)
        finally:
            del self._stopped[key]
            if call is not None:
                self._told(call).put("")  # for ranks that still wait for it

    @ray.method(concurrency_group="meeting")  # type: ignore[untyped-decorator]
    def address(self, call: int) -> str:
        """Where rank 0 of the stage is, once it is there; empty when it never comes to that."""
        return self._told(call).get()

    @ray.method(concurrency_group="stage")  # type: ignore[untyped-decorator]
    def follow(self, address: str, rank: int) -> None:
        """Be another rank of the stage whose rank 0 is at ``address``."""
        from umd_bench.orchestration.ranks import follow_stage

        if address:
            follow_stage(address, rank, local=rank)

    def _told(self, call: int) -> queue.SimpleQueue[str]:
        return self._addresses.setdefault(call, queue.SimpleQueue())


class RayExecutor:
    """A pool of actors; a dead one is replaced and its stage reported as died."""

    name = "ray"

    def __init__(
        self, root: Path, data_root: Path, *, workers: int, threads: int, devices: int = 1, stage: str = RUN_STAGE
    ) -> None:
        self.slots = workers
        self._root, self._devices = root.resolve(), devices
        self._arguments = (str(root.resolve()), str(data_root.resolve()), stage)
        self._threads = threads
        self._folder = tempfile.mkdtemp(prefix="ub-ray-")  # short: Ray's sockets live below it
        self._queue: deque[str] = deque()
        self._running: dict[Any, tuple[str, Any]] = {}
        self._following: dict[Any, Any] = {}  # actors that are other ranks of a stage
        self._calls = 0
        self._cancelled: set[str] = set()
        self._never_began: list[Ended] = []
        self._stopping = False
        _start(self._folder, cpus=workers * threads)
        self._idle = [self._actor() for _ in range(workers)]

    def _actor(self) -> Any:
        options = {
            "num_cpus": self._threads,
            "concurrency_groups": {"stage": 1, "control": 1, "meeting": 1},
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(self._threads), "MKL_NUM_THREADS": str(self._threads)}},
        }
        return ray.remote(**options)(_Worker).remote(*self._arguments)

    def submit(self, key: str) -> None:
        """Give the stage to an idle actor, or queue it."""
        self._queue.append(key)
        self._dispatch()

    def adopt(self, keys: Iterable[str]) -> set[str]:
        """None: the actors end with the process that started this Ray."""
        return set()

    def _dispatch(self) -> None:
        while self._queue and self._idle and not self._stopping:
            devices = self._devices_of(self._queue[0])
            if devices > len(self._idle):  # what is behind it waits too, or it might never have them all
                return
            key = self._queue.popleft()
            first, *others = (self._idle.pop() for _ in range(devices))
            if not others:
                self._running[first.run.remote(key)] = (key, first)
                continue
            self._calls += 1
            self._running[first.run.remote(key, self._calls)] = (key, first)
            address = first.address.remote(self._calls)
            for rank, actor in enumerate(others, 1):
                self._following[actor.follow.remote(address, rank)] = actor

    def _devices_of(self, key: str) -> int:
        return 1 if self._devices == 1 else RunDir(self._root, key).config().devices

    def poll(self, timeout: float) -> list[Ended]:
        """Collect the stages whose actor returned or died."""
        ended, self._never_began = self._never_began, []
        if ended or not self._running:
            return ended
        ready, _ = ray.wait([*self._running, *self._following], num_returns=1, timeout=timeout)
        for reference in ready:
            if reference in self._following:
                self._idle.append(self._let_go(reference))
                continue
            key, actor = self._running.pop(reference)
            try:
                ray.get(reference)
            except (ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError) as error:
                ended.append(Ended(key, _kind(error), f"{type(error).__name__}: worker process ended while it ran the stage"))
                actor = self._actor()
            except ray.exceptions.RayError as error:
                ended.append(Ended(key, Kind.DIED, str(error).strip().splitlines()[-1]))
            else:
                cancelled = key in self._cancelled
                ended.append(Ended(key, Kind.CANCELLED, "cancelled while it ran") if cancelled else Ended(key))
            self._cancelled.discard(key)
            self._idle.append(actor)
        self._dispatch()
        return ended

    def _let_go(self, reference: Any) -> Any:
        """The actor of another rank; what became of the stage is rank 0's to say."""
        actor = self._following.pop(reference)
        try:
            ray.get(reference)
        except ray.exceptions.RayTaskError:
            return actor
        except ray.exceptions.RayError:  # its process ended, or rank 0's did before it gave the address
            ray.kill(actor)
            return self._actor()
        return actor

    def cancel(self, key: str) -> None:
        """A queued stage never begins; a running one ends at its next step boundary."""
        if key in self._queue:
            self._queue.remove(key)
            self._never_began.append(Ended(key, Kind.CANCELLED, "cancelled before it began"))
        for running, actor in self._running.values():
            if running == key:
                self._cancelled.add(key)
                actor.stop.remote(key)

    def stop(self) -> None:
        """Every running stage ends at its next step boundary; queued ones do not start."""
        self._stopping = True
        for key in list(self._queue):
            self.cancel(key)
        for key, actor in self._running.values():
            actor.stop.remote(key)

    def detach(self) -> None:
        """Ray is this process's own: the same as :meth:`close`."""
        self.close()

    def close(self) -> None:
        """End Ray and remove its folder."""
        ray.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


def _kind(error: Exception) -> Kind:
    """Ray ends a worker when the machine's memory runs short, and says so in its error."""
    short = isinstance(error, ray.exceptions.OutOfMemoryError) or "running low on memory" in str(error)
    return Kind.OOM if short else Kind.DIED


def _start(folder: str, *, cpus: int) -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ["RAY_AUTH_MODE"] = "disabled"  # a token file left by another Ray would lock our own workers out
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
            object_store_memory=100 * 2**20,
            logging_level=logging.ERROR,
            log_to_driver=False,
            configure_logging=True,
        )
    except Exception as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise UserError(f"a local Ray could not be started ({error}); `--on inline` runs without it") from error
