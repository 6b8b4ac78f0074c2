"""A Ray of several nodes on this machine. Each node has a loopback address and a process group of its own.

The context's exit kills every process of the nodes, each by its own id.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType

import psutil

START_SECONDS = 90.0
RAY_SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


def _free_port(host: str) -> int:
    with socket.socket() as server:
        server.bind((host, 0))
        return int(server.getsockname()[1])


class Node:
    """One ``ray start --block`` and the processes that it started."""

    def __init__(self, host: str, folder: Path, *options: str) -> None:
        self.host = host
        self._log = folder / f"{host}.log"
        command = [sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--block", "--num-cpus=1"]
        options = (f"--node-ip-address={host}", "--object-store-memory=80000000", "--disable-usage-stats", *options)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | RAY_SETTINGS
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [*command, *options], stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True, cwd="/"
            )
        deadline = time.monotonic() + START_SECONDS
        while "will now block" not in self._log.read_text():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"no Ray node on {host}: {re.sub(chr(10), ' ', self._log.read_text())[-1000:]}")
            time.sleep(0.1)

    def process(self, program: str) -> psutil.Process:
        """The ``raylet`` or ``gcs_server`` of this node."""
        found = psutil.Process(self._process.pid).children(recursive=True)
        return next(p for p in found if p.cmdline() and p.cmdline()[0].endswith(f"/{program}"))

    def kill(self) -> None:
        """Kill every process of the node at once, as a power cut does."""
        everything = [self._process.pid]
        with contextlib.suppress(psutil.NoSuchProcess):
            everything += [p.pid for p in psutil.Process(self._process.pid).children(recursive=True)]
        for pid in everything:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.wait()


class MiniRay:
    """A head with ``cpus`` cores, and with ``gpus`` GPUs that do not exist; :meth:`add_node` adds nodes of one core."""

    def __init__(self, *, gpus: int = 0, cpus: int = 1) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="mr", ignore_cleanup_errors=True)
        self._gpus, self._cpus = gpus, cpus
        self._nodes: list[Node] = []

    def __enter__(self) -> MiniRay:
        path = Path(self._folder.name)
        host = "127.0.0.21"
        self.address = f"{host}:{_free_port(host)}"
        quick = '--system-config={"health_check_period_ms": 500, "health_check_initial_delay_ms": 1000}'
        options = [
            quick,
            "--head",
            f"--port={self.address.rpartition(':')[2]}",
            f"--temp-dir={path}",
            "--include-dashboard=false",
        ]
        try:
            self.head = Node(host, path, *options, f"--num-gpus={self._gpus}", f"--num-cpus={self._cpus}")
        except BaseException:
            self._folder.cleanup()
            raise
        self._nodes.append(self.head)
        return self

    def add_node(self) -> Node:
        """Add a node with one core."""
        self._nodes.append(Node(f"127.0.0.{21 + len(self._nodes)}", Path(self._folder.name), f"--address={self.address}"))
        return self._nodes[-1]

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for node in reversed(self._nodes):
            node.kill()
        self._folder.cleanup()
