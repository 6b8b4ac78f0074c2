"""A private Ray for one command, on loopback and in a temporary folder. It ends with the command."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ray

from umd_bench.config.errors import UserError
from umd_bench.orchestration.executors.ray.connection import QUIET
from umd_bench.orchestration.executors.ray.nodes import is_alive, one_line, room_on_nodes

OBJECT_STORE_BYTES = 100 * 2**20  # nothing large is sent through Ray


class PrivateRay:
    """A local Ray with ``cpus`` cores; raises :class:`UserError` if it cannot start."""

    def __init__(self, *, cpus: int, threads: int) -> None:
        self.environment: dict[str, str] = {}  # none: workers inherit this process's variables, and may start before any actor
        self._folder = tempfile.mkdtemp(prefix="ub-ray-")  # a short name: Ray's sockets are in this folder
        settings = {
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": os.environ.get("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"),
            "RAY_AUTH_MODE": "disabled",  # a token file that another Ray has left would lock out our workers
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        try:
            with _environment(settings):
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=self._folder,
                    object_store_memory=OBJECT_STORE_BYTES,
                    **QUIET,
                )
        except Exception as error:
            self.close()
            raise UserError(
                f"a local Ray could not be started ({one_line(error)}); `umd-bench doctor` looks for the reason, and "
                "`--on inline` runs without it"
            ) from error

    def gpus_per_stage(self, requested: float | None, workers: int) -> float:
        """As requested, else an equal share of the machine's GPUs for each worker, at most one."""
        return min(1.0, int(self.gpus() / workers * 1e4) / 1e4) if requested is None else requested

    def gpus(self) -> float:
        """The GPUs of this machine that Ray has found."""
        return float(ray.cluster_resources().get("GPU", 0))

    def check_nodes(self, root: Path, data_root: Path) -> None:
        """Nothing to check: the only node is this machine."""

    def room(self, threads: int, gpus: float) -> int:
        return room_on_nodes(threads, gpus)

    def answers(self) -> bool:
        """Always true, since a private Ray ends with this process, not before."""
        return True

    def alive(self, node: str) -> bool:
        return is_alive(node)

    def check(self) -> None:
        """Nothing to check, since a private Ray ends with this process, not before."""

    def close(self) -> None:
        ray.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


@contextlib.contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    """Set these variables while Ray starts. Then remove the ones that were unset, and restore the numbers of threads.

    If the user had set one of Ray's own variables, it keeps our value, since this process still uses this Ray.
    """
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            elif name.endswith("_NUM_THREADS"):
                os.environ[name] = value
