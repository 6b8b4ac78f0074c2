"""What one node has to say about itself: a tiny job, ``node_report FOLDER``, that writes ``FOLDER/report.json`` and ends.

It proves from there what the command cannot know from here: that the folder is the same one, and that a lock, a link and a
rename made on one machine bind the other.
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

SEEN_SECONDS = 15.0  # for which its own lock is held, for the command to run into
LIBRARIES = ("torch", "torchvision", "timm", "numpy", "pydantic", "submitit", "filelock")
ASKED, REPORT, HELD, OURS, TAKEN, SEEN = "asked.json", "report.json", "held.lock", "ours.lock", "taken", "seen"


def versions() -> dict[str, str]:
    """Of Python, of this package and of the libraries that a stage needs; ``none`` where one is missing."""
    found = {"python": platform.python_version(), "umd-bench": umd_bench.__version__}
    for library in LIBRARIES:
        try:
            found[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            found[library] = "none"
    return found


def main(name: str) -> int:
    """Look, write the report while holding a lock, wait until it was noticed."""
    folder = Path(name)
    asked = read_json(folder / ASKED) or {}
    with filelock.FileLock(folder / OURS, is_singleton=False):
        write_json(folder / REPORT, {**_facts(asked), "excluded": _excluded(folder), "links": _links(folder)})
        until = time.monotonic() + SEEN_SECONDS
        while not (folder / SEEN).exists() and time.monotonic() < until:
            time.sleep(0.1)
    return 0


def _facts(asked: dict[str, Any]) -> dict[str, Any]:
    return {
        "host": platform.node(),
        "node": os.environ.get("SLURMD_NODENAME", ""),
        "versions": versions(),
        "cores": usable_cores(),
        "free": {path: shutil.disk_usage(path).free for path in asked.get("folders", []) if Path(path).is_dir()},
        "missing": [path for path in asked.get("folders", []) if not Path(path).is_dir()],
        "gpus": _gpus(),
    }


def _gpus() -> dict[str, Any]:
    """What torch sees, and what Slurm said it may."""
    told = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    try:
        import torch
    except Exception as error:  # whatever a broken installation raises is what is to be reported
        return {"error": f"{type(error).__name__}: {error}", "visible": told, "names": []}
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return {"error": "", "visible": told, "names": names}


def _excluded(folder: Path) -> bool:
    """Whether the lock that the command holds keeps this process out."""
    try:
        filelock.FileLock(folder / HELD, is_singleton=False).acquire(blocking=False)
    except filelock.Timeout:
        return True
    return False


def _links(folder: Path) -> bool:
    """Whether a name that the command took stays taken."""
    (folder / "of-node").touch()
    return not link_new(folder / "of-node", folder / TAKEN)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
