"""A Ray cluster that runs already, and is left running.

The command uses only actors, in a namespace of its own; they end with the command.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

import ray

from umd_bench.config.errors import UserError
from umd_bench.orchestration.executors.ray.connection import QUIET
from umd_bench.orchestration.executors.ray.node_check import check_nodes
from umd_bench.orchestration.executors.ray.nodes import describe_nodes, is_alive, living_nodes, one_line, room_on_nodes

CONNECT_SECONDS = 40.0  # for the cluster's answer
POLL_HEAD_SECONDS = 2.0  # between two connections to the head
HEAD_LOST_SECONDS = 10.0  # without an answer of the head; Ray itself would end this process after 60
REACH_SECONDS = 5.0  # for one connection to the head


class RunningRay:
    """The cluster at ``address`` (``auto``: this machine's), whose workers run the copy of the package in ``code``.

    Raises :class:`UserError` if nothing answers there, or if its version of Ray or Python differs from ours.
    """

    def __init__(self, address: str, *, code: Path, threads: int) -> None:
        self.name = address
        self._code = code
        self.environment = {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH", "")])),
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        self._address = reachable(address)
        self._head = _host_and_port(self._address)
        too_late = f"--ray-address {address}: no Ray answered there within {CONNECT_SECONDS:.0f} s"
        _within(CONNECT_SECONDS, self._connect, too_late)
        self._checked_at = self._answered_at = time.monotonic()

    def _connect(self) -> None:
        try:
            with contextlib.chdir(self._code):  # Ray puts this process's directory first on its workers' path
                ray.init(
                    address=self._address,
                    namespace=f"umd-bench-{uuid.uuid4().hex[:8]}",
                    runtime_env={"env_vars": self.environment},
                    **QUIET,
                )
        except Exception as error:
            raise UserError(f"--ray-address {self.name} cannot be used: {one_line(error)}") from error

    def gpus_per_stage(self, requested: float | None, workers: int) -> float:
        """As requested. On a cluster with GPUs a request is required: without one, Ray hides all GPUs from a stage."""
        if requested is None and any(node["Resources"].get("GPU") for node in living_nodes()):
            raise UserError(
                f"--ray-address {self.name}: there is {describe_nodes()}, and a stage sees only the GPUs that it requests: "
                "expected --gpus-per-stage, such as 1, or 0.25 for four stages on each GPU, or 0 for stages on CPUs"
            )
        return requested or 0.0

    def check_nodes(self, root: Path, data_root: Path) -> None:
        """See :func:`~umd_bench.orchestration.executors.ray.node_check.check_nodes`."""
        check_nodes(self._code, root, data_root)

    def room(self, threads: int, gpus: float) -> int:
        """As in the protocol; 1 while the head does not answer."""
        return room_on_nodes(threads, gpus) if self.answers() else 1

    def answers(self) -> bool:
        return _answers(self._head)

    def alive(self, node: str) -> bool:
        return not self.answers() or is_alive(node)

    def check(self) -> None:
        """Connect to the head every few seconds; raise :class:`UserError` if it has not answered for a while."""
        now = time.monotonic()
        if now - self._checked_at < POLL_HEAD_SECONDS:
            return
        self._checked_at = now
        if self.answers():
            self._answered_at = now
        elif now - self._answered_at > HEAD_LOST_SECONDS:
            raise UserError(
                f"the head of the Ray cluster {self.name} does not answer any more; finished stages and checkpoints "
                "remain, and the same command continues from them once a Ray runs again"
            )

    def close(self) -> None:
        with contextlib.suppress(UserError):
            _within(CONNECT_SECONDS, ray.shutdown, "")


def reachable(address: str) -> str:
    """HOST:PORT of the cluster at ``address`` (``auto``: this machine's); :class:`UserError` if nothing answers there."""
    host_port = address if address != "auto" else _address_on_this_machine()
    if not _answers(_host_and_port(host_port)):
        named = "" if address == host_port else f" ({host_port})"
        raise UserError(f"--ray-address {address}{named}: nothing answers there; `ray start --head` prints its address")
    return host_port


def _answers(head: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(head, timeout=REACH_SECONDS):
            return True
    except (OSError, OverflowError, UnicodeError):  # OverflowError: a port above 65535; UnicodeError: no valid host name
        return False


def _address_on_this_machine() -> str:
    """The address in RAY_ADDRESS, or the one that ``ray start`` has recorded on this machine.

    Ray's own ``auto`` also searches all processes, and would find the private Ray of another command.
    """
    file = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    address = os.environ.get("RAY_ADDRESS") or (file.read_text().strip() if file.is_file() else "")
    if not re.fullmatch(r".+:\d+", address) or "://" in address:
        raise UserError(
            f"--ray-address auto: expected a Ray that `ray start` has started here (its address in {file}), or "
            "RAY_ADDRESS=HOST:PORT"
        )
    return address


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _within(seconds: float, work: Callable[[], None], too_late: str) -> None:
    """Call ``work`` in a thread and raise its error, if any; raise :class:`UserError` if it takes longer than ``seconds``."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise UserError(too_late)
    if raised:
        raise raised[0]
