"""Runs on a node: reports its libraries, cores, GPUs and free space, and whether locks and links hold between machines.

Started as a module, ``node_main FOLDER``, by the job of :mod:`~umd_bench.orchestration.doctor.node_probe`. The command
``umd-bench doctor`` uses the same folder; the constants below name the files that both write there.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import filelock

import umd_bench
from umd_bench.machine import usable_cores
from umd_bench.store.files import link_new, read_json, write_json

LOCK_SECONDS = 15.0  # the node holds its lock for at most this long, so that the command can test it
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pydantic", "submitit", "filelock")
REQUEST, REPORT = "request.json", "report.json"
COMMANDS_LOCK, NODES_LOCK = "command.lock", "node.lock"
TAKEN_NAME = "taken"  # the command makes this file; a hard link of the node to the same name must fail
LOCK_TESTED = "lock-tested"  # the command has tested the node's lock, so the node may end


def versions() -> dict[str, str]:
    """The versions of Python, this package and the libraries that a stage needs; ``none`` for a missing library."""
    installed = {"python": platform.python_version(), "umd-bench": umd_bench.__version__}
    for library in LIBRARIES:
        try:
            installed[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            installed[library] = "none"
    return installed


def main(name: str) -> int:
    """Write the report while holding the node's lock, then wait until the command has tested that lock."""
    folder = Path(name)
    request = read_json(folder / REQUEST) or {}
    with filelock.FileLock(folder / NODES_LOCK, is_singleton=False):
        locks = {"excluded": is_locked(folder / COMMANDS_LOCK), "links": _link_is_refused(folder)}
        write_json(folder / REPORT, {**_facts(request), **locks})
        until = time.monotonic() + LOCK_SECONDS
        while not (folder / LOCK_TESTED).exists() and time.monotonic() < until:
            time.sleep(0.1)
    return 0


def is_locked(path: Path) -> bool:
    """Whether another process, here or on another machine, holds the lock."""
    try:
        filelock.FileLock(path, is_singleton=False).acquire(blocking=False)
    except filelock.Timeout:
        return True
    return False


def _facts(request: dict[str, Any]) -> dict[str, Any]:
    folders = request.get("folders", [])
    return {
        "host": platform.node(),
        "node": os.environ.get("SLURMD_NODENAME", ""),
        "versions": versions(),
        "cores": usable_cores(),
        "free": {path: shutil.disk_usage(path).free for path in folders if Path(path).is_dir()},
        "missing": [path for path in folders if not Path(path).is_dir()],
        "gpus": _gpus(),
    }


def _gpus() -> dict[str, Any]:
    """The CUDA devices that torch sees, and those that Slurm assigned to the job."""
    assigned = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    try:
        import torch
    except Exception as error:  # a broken installation may raise anything; the report quotes it
        return {"error": f"{type(error).__name__}: {error}", "visible": assigned, "names": []}
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {"error": "", "visible": assigned, "names": names}


def _link_is_refused(folder: Path) -> bool:
    """Whether a hard link to a name that the command has already used fails, as it must."""
    (folder / "of-node").touch()
    return not link_new(folder / "of-node", folder / TAKEN_NAME)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
