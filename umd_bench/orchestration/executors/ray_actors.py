"""Stages on warm Ray actors: each imports torch once and then runs one stage after another.

A local Ray is started for the command, on loopback, in a temporary folder of its own, and ended with it; two commands on one
machine have a Ray each. The machine's cores are divided among the actors: ``cores // threads`` of them unless told otherwise.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import ray

from umd_bench.config.errors import UserError
from umd_bench.orchestration.executors.contract import RUN_STAGE, Ended, Kind, stage_function


class _Worker:
    """The actor: a process with torch imported, one stage at a time, and a second thread that hears ``stop``."""

    def __init__(self, root: str, data_root: str, stage: str) -> None:
        self._run, self._root, self._data_root = stage_function(stage), Path(root), Path(data_root)
        self._stopped: dict[str, threading.Event] = {}

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def stop(self, key: str) -> None:
        """By key, since the word may arrive before the stage begins or after it ended."""
        self._stopped.setdefault(key, threading.Event()).set()

    @ray.method(concurrency_group="stage")  # type: ignore[untyped-decorator]
    def run(self, key: str) -> None:
        """What the stage returns stays here: it need not be anything that can be sent."""
        self._run(self._root, key, self._data_root, stop=self._stopped.setdefault(key, threading.Event()).is_set)
        del self._stopped[key]


class RayExecutor:
    """A pool of actors; a dead one is replaced and its stage reported as died."""

    name = "ray"

    def __init__(self, root: Path, data_root: Path, *, workers: int, threads: int, stage: str = RUN_STAGE) -> None:
        self.slots = workers
        self._arguments = (str(root.resolve()), str(data_root.resolve()), stage)
        self._threads = threads
        self._folder = tempfile.mkdtemp(prefix="ub-ray-")  # short: Ray's sockets live below it
        self._queue: deque[str] = deque()
        self._running: dict[Any, tuple[str, Any]] = {}
        self._cancelled: set[str] = set()
        self._never_began: list[Ended] = []
        self._stopping = False
        _start(self._folder, cpus=workers * threads)
        self._idle = [self._actor() for _ in range(workers)]

    def _actor(self) -> Any:
        options = {
            "num_cpus": self._threads,
            "concurrency_groups": {"stage": 1, "control": 1},
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
            actor = self._idle.pop()
            key = self._queue.popleft()
            self._running[actor.run.remote(key)] = (key, actor)

    def poll(self, timeout: float) -> list[Ended]:
        """Collect the stages whose actor returned or died."""
        ended, self._never_began = self._never_began, []
        if ended or not self._running:
            return ended
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout)
        for reference in ready:
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
