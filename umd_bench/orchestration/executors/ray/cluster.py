"""A Ray to run stages on: one of the command's own, or a cluster that runs already and is left running.

A Ray of one's own is on loopback, in a temporary folder, and ends with the command: two commands on one machine have one each.
Of a cluster nothing is used but actors in a namespace of this command's own, which end with it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import shutil
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

import umd_bench
from umd_bench.config.errors import UserError

CONNECT_SECONDS = 40.0  # for the cluster's answer
LOOK_SECONDS = 60.0  # for a process on each node to say what it sees
HEAD_SECONDS = 2.0  # between two looks whether the head is there
HEAD_LOST_SECONDS = 10.0  # without an answer; Ray itself ends this process after 60
OBJECT_STORE_BYTES = 100 * 2**20  # nothing large is sent through Ray


class Ray(Protocol):
    """A Ray that this process is connected to."""

    environment: dict[str, str]

    def room(self, threads: int, gpus: float) -> int:
        """How many stages fit at a time, were it otherwise idle."""

    def answers(self) -> bool:
        """Whether its head is there; asked before anything else is asked of it, which would wait for it in vain."""

    def alive(self, node: str) -> bool:
        """Whether Ray holds the node for alive, or cannot say."""

    def check(self) -> None:
        """Raises :class:`UserError` when it is lost."""

    def close(self) -> None:
        """Let go; may be called twice."""


class OwnRay:
    """A local Ray with ``cpus`` cores; raises :class:`UserError` where it cannot start."""

    def __init__(self, *, cpus: int, threads: int) -> None:
        self.environment: dict[str, str] = {}  # its workers inherit ours, and so may be those that it starts beforehand
        self._folder = tempfile.mkdtemp(prefix="ub-ray-")  # short: Ray's sockets live below it
        ours = {
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": os.environ.get("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"),
            "RAY_AUTH_MODE": "disabled",  # a token file left by another Ray would lock our own workers out
            "RAY_USAGE_STATS_ENABLED": "0",
            "OMP_NUM_THREADS": str(threads),
            "MKL_NUM_THREADS": str(threads),
        }
        try:
            with _environment(ours):
                ray.init(
                    address="local",
                    num_cpus=cpus,
                    include_dashboard=False,
                    _node_ip_address="127.0.0.1",
                    _temp_dir=self._folder,
                    object_store_memory=OBJECT_STORE_BYTES,
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
        except Exception as error:
            self.close()
            raise UserError(
                f"a local Ray could not be started ({_one_line(error)}); `umd-bench doctor` looks for the reason, and "
                "`--on inline` runs without it"
            ) from error

    def room(self, threads: int, gpus: float) -> int:
        return _room(threads, gpus)

    def answers(self) -> bool:
        return True

    def alive(self, node: str) -> bool:
        return _alive(node)

    def gpus(self) -> float:
        """GPUs of this machine that Ray has found."""
        return float(ray.cluster_resources().get("GPU", 0))

    def check(self) -> None:
        """It ends with this process, not before."""

    def close(self) -> None:
        ray.shutdown()
        shutil.rmtree(self._folder, ignore_errors=True)


class RunningRay:
    """The cluster at ``address`` (``auto``: this machine's), whose workers run the copy of the package in ``code``.

    Raises :class:`UserError` where there is none, where its versions differ from ours, and where a node does not see ``root``,
    the data folder or the code: all three must be on a file system that the nodes share.
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
        late = f"--ray-address {address}: no Ray answered there within {CONNECT_SECONDS:.0f} s"
        _within(CONNECT_SECONDS, self._connect, late)
        self._asked_at = self._answered_at = time.monotonic()

    def _connect(self) -> None:
        try:
            with contextlib.chdir(self._code):  # Ray puts this process's directory first on its workers' path
                ray.init(
                    address=self._address,
                    namespace=f"umd-bench-{uuid.uuid4().hex[:8]}",
                    runtime_env={"env_vars": self.environment},
                    logging_level=logging.ERROR,
                    log_to_driver=False,
                )
        except Exception as error:
            raise UserError(f"--ray-address {self.name} cannot be used: {_one_line(error)}") from error

    def room(self, threads: int, gpus: float) -> int:
        return _room(threads, gpus) if self.answers() else 1

    def answers(self) -> bool:
        return _answers(self._head)

    def alive(self, node: str) -> bool:
        return not self.answers() or _alive(node)

    def require_said(self, gpus: float | None) -> None:
        """Raises :class:`UserError` where nothing says what a stage takes of this cluster's GPUs: Ray would show it none."""
        if gpus is None and any(node["Resources"].get("GPU") for node in _nodes()):
            raise UserError(
                f"--ray-address {self.name}: there is {what_there_is()}, and a stage sees only the GPUs that it asks for: "
                "expected --gpus-per-stage, such as 1, or 0.25 for four stages on each, or 0 for stages on CPUs"
            )

    def check_nodes(self, root: Path, data_root: Path) -> None:
        """Prove from a process on each node that it sees both folders and runs our copy of the package."""
        word = uuid.uuid4().hex
        probes = []
        try:
            for folder, what in ((root, "results"), (data_root, "data")):
                probes.append((folder / f".seen-by-all-nodes-{word[:8]}", what))
                with contextlib.suppress(OSError):  # a data folder need not be writable: then what is in it must be seen
                    probes[-1][0].write_text(word)
            there = {what: sorted(os.listdir(path.parent)) for path, what in probes}  # noqa: PTH208 - names alone
            nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in _nodes() if node["Resources"].get("CPU")}
            looks = {}
            for node in nodes:
                here = NodeAffinitySchedulingStrategy(node, soft=False)
                remote = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=here)(_look)
                looks[remote.remote([(str(path), what) for path, what in probes], there)] = nodes[node]
            ready, late = ray.wait(list(looks), num_returns=len(looks), timeout=LOOK_SECONDS)
            if late:
                raise UserError(f"Ray node {looks[late[0]]} started no process within {LOOK_SECONDS:.0f} s")
            for reference in ready:
                self._judge(looks[reference], reference, {"results": root, "data": data_root})
        finally:
            for path, _ in probes:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _judge(self, node: str, reference: Any, folders: dict[str, Path]) -> None:
        try:
            missed, package, version = ray.get(reference)
        except ray.exceptions.TaskUnschedulableError:
            return  # it left the cluster since the nodes were listed: nothing will run there
        except Exception as error:
            raise UserError(
                f"Ray node {node} cannot run this package: {_one_line(error)}; its copy {self._code} must be on a file system "
                "that the nodes share"
            ) from error
        for what in missed:
            raise UserError(
                f"Ray node {node} does not see what this machine has in the {what} folder {folders[what]}: expected a folder "
                "on a file system that all nodes share"
            )
        if not Path(package).is_relative_to(self._code):
            raise UserError(
                f"Ray node {node} runs umd-bench {version} from {package} instead of the copy in {self._code}: expected a Ray "
                "that was not started with a package of its own on PYTHONPATH"
            )

    def check(self) -> None:
        """Look every few seconds whether the head is there."""
        now = time.monotonic()
        if now - self._asked_at < HEAD_SECONDS:
            return
        self._asked_at = now
        if self.answers():
            self._answered_at = now
        elif now - self._answered_at > HEAD_LOST_SECONDS:
            raise UserError(
                f"the head of the Ray cluster {self.name} does not answer any more; what was done is kept, and the same "
                "command goes on from there once a Ray is back"
            )

    def close(self) -> None:
        with contextlib.suppress(UserError):
            _within(CONNECT_SECONDS, ray.shutdown, "")


def reachable(address: str) -> str:
    """HOST:PORT of the cluster at ``address`` (``auto``: this machine's); :class:`UserError` where nothing answers there."""
    found = address if address != "auto" else _of_this_machine()
    if not _answers(_host_and_port(found)):
        named = "" if address == found else f" ({found})"
        raise UserError(f"--ray-address {address}{named}: nothing answers there; `ray start --head` prints its address")
    return found


def _answers(head: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(head, timeout=5):
            return True
    except (OSError, OverflowError, UnicodeError):  # a port beyond 65535; what can be no name of a host
        return False


def _of_this_machine() -> str:
    """The address that RAY_ADDRESS names, or that ``ray start`` left on this machine.

    Ray's own ``auto`` also looks through all processes, and would find the private Ray of another command.
    """
    left = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    found = os.environ.get("RAY_ADDRESS") or (left.read_text().strip() if left.is_file() else "")
    if not re.fullmatch(r".+:\d+", found) or "://" in found:
        raise UserError(
            f"--ray-address auto: expected a Ray that `ray start` has started here (its address in {left}), or "
            "RAY_ADDRESS=HOST:PORT"
        )
    return found


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _look(probes: list[tuple[str, str]], there: dict[str, list[str]]) -> tuple[list[str], str, str]:
    """On a node: the kinds of folders that it does not see, and which package it runs."""
    missed = []
    for path, what in probes:
        try:
            names = os.listdir(Path(path).parent)  # noqa: PTH208
        except OSError:
            names = None
        if names is None or not set(there[what]) <= set(names):
            missed.append(what)
    return missed, umd_bench.__file__, umd_bench.__version__


def _nodes() -> list[dict[str, Any]]:
    return [node for node in ray.nodes() if node["Alive"]]


def _alive(node: str) -> bool:
    return any(each["NodeID"] == node for each in _nodes())


def what_there_is() -> str:
    """The nodes and what they have, in words."""
    words = [
        f"{n['NodeManagerAddress']} with {n['Resources'].get('CPU', 0):g} CPUs and {n['Resources'].get('GPU', 0):g} GPUs"
        for n in _nodes()
    ]
    return ", ".join(words) or "no node"


def _room(threads: int, gpus: float) -> int:
    fits = 0
    for node in _nodes():
        have = node["Resources"]
        by_cpu = int(have.get("CPU", 0) // threads)
        whole = int(have.get("GPU", 0) // max(gpus, 1)) if gpus else by_cpu
        fits += min(by_cpu, whole * int(1 / gpus + 1e-9) if 0 < gpus < 1 else whole)
    return fits


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


def _within(seconds: float, work: Callable[[], None], late: str) -> None:
    """Call ``work`` and wait so long for it; what it raises is raised here."""
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
        raise UserError(late)
    if raised:
        raise raised[0]


@contextlib.contextmanager
def _environment(ours: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            elif name.endswith("_NUM_THREADS"):
                os.environ[name] = value
