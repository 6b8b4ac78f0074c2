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
from pathlib import Path
from typing import Any

import ray

from umd_bench.config.errors import UserError
from umd_bench.orchestration.executors.contract import Ended


class _Worker:
    """The actor: a process with torch imported, one stage at a time, and a second thread that hears ``stop``."""

    def __init__(self, root: str, data_root: str) -> None:
        from umd_bench.orchestration import worker

        self._worker, self._root, self._data_root = worker, Path(root), Path(data_root)
        self._stop = threading.Event()

    @ray.method(concurrency_group="control")  # type: ignore[untyped-decorator]
    def stop(self) -> None:
        self._stop.set()

    @ray.method(concurrency_group="stage")  # type: ignore[untyped-decorator]
    def run(self, key: str) -> None:
        self._worker.run_stage(self._root, key, self._data_root, stop=self._stop.is_set)


class RayExecutor:
    """A pool of actors; a dead one is replaced and its stage reported as died."""

    name = "ray"

    def __init__(self, root: Path, data_root: Path, *, workers: int, threads: int) -> None:
        self.slots = workers
        self._arguments = (str(root.resolve()), str(data_root.resolve()))
        self._threads = threads
        self._folder = tempfile.mkdtemp(prefix="ub-ray-")  # short: Ray's sockets live below it
        self._queue: deque[str] = deque()
        self._running: dict[Any, tuple[str, Any]] = {}
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

    def _dispatch(self) -> None:
        while self._queue and self._idle and not self._stopping:
            actor = self._idle.pop()
            key = self._queue.popleft()
            self._running[actor.run.remote(key)] = (key, actor)

    def poll(self, timeout: float) -> list[Ended]:
        """Collect the stages whose actor returned or died."""
        if not self._running:
            return []
        ready, _ = ray.wait(list(self._running), num_returns=1, timeout=timeout)
        ended = []
        for reference in ready:
            key, actor = self._running.pop(reference)
            try:
                ray.get(reference)
            except ray.exceptions.RayError as error:
                ended.append(Ended(key, died=f"{type(error).__name__}: worker process ended while it ran the stage"))
                actor = self._actor()
            else:
                ended.append(Ended(key))
            self._idle.append(actor)
        self._dispatch()
        return ended

    def stop(self) -> None:
        """Every running stage ends at its next step boundary; queued ones do not start."""
        self._stopping = True
        self._queue.clear()
        for _, actor in self._running.values():
            actor.stop.remote()

    def close(self) -> None:
        """End Ray and remove its folder."""
        ray.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


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
