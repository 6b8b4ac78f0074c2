"""Can a local Ray start here? A small one is started in its own process with a timeout; a failure comes with a remedy."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from umd_bench.orchestration.commands import kill_group, last_line, running_process
from umd_bench.orchestration.doctor.finding import Finding

TRY_SECONDS = 60.0
SLOW_SECONDS = 20.0
SOCKET_PATH_BYTES = 107  # the longest path of a Unix socket
# Ray appends this to the path of the temporary folder.
SOCKET = "/ub-ray-12345678/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"
SHM_BYTES = 200 * 2**20  # twice the object store of a sweep
MAX_ERROR = 300  # characters of an error that a finding quotes
_TRY = """
import sys
from umd_bench.config.errors import UserError
from umd_bench.orchestration.executors.ray.private_ray import PrivateRay
import ray
try:
    own = PrivateRay(cpus=1, threads=1)
except UserError as error:
    sys.exit(" ".join(str(error.__cause__).split()))
try:
    reply = ray.get(ray.remote(num_cpus=1)(lambda: "answered").remote(), timeout=40)
    print(ray.__version__, reply)
finally:
    own.close()
"""
# Pattern in the error -> remedy; the first match counts.
REMEDIES = (
    (r"AF_UNIX path|path.*too long|socket path", "Ray's socket paths are too long: set TMPDIR to a short folder such as /tmp"),
    (r"shm|shared memory|plasma|No space left", "free space in /dev/shm, or start the container with --shm-size=1g"),
    (r"token|auth", "Ray requires a token: remove ~/.ray/auth_token, and unset the RAY_AUTH_* variables"),
    (r"[Vv]ersion", "reinstall ray: pip install --force-reinstall ray"),
    (r"Permission denied|Read-only", "set TMPDIR to a writable folder"),
    (r"[Cc]onnect|timed out|Address|address", "processes cannot connect over 127.0.0.1: allow loopback connections"),
    (r"No module named", "the installation of ray is incomplete: reinstall it with pip"),
)


def check_ray(*, seconds: float = TRY_SECONDS) -> Iterator[Finding]:
    """Check the machine for Ray's requirements, then whether a local Ray starts and answers within ``seconds``."""
    yield from _temporary_folder()
    yield from _shared_memory()
    yield from _variables()
    yield _try(seconds)


def _temporary_folder() -> Iterator[Finding]:
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder + SOCKET)) > SOCKET_PATH_BYTES:
        text = f"the path of the temporary folder {folder} is too long for Ray's sockets"
        yield Finding("fail", text, "set TMPDIR to a short path such as /tmp")
    elif not os.access(folder, os.W_OK):
        yield Finding("fail", f"the temporary folder {folder} is not writable", "set TMPDIR to a folder that is")


def _shared_memory() -> Iterator[Finding]:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        yield Finding(
            "warn", "there is no /dev/shm, so Ray keeps its objects on disk", "start the container with --shm-size=1g"
        )
    elif (free := shutil.disk_usage(shm).free) < SHM_BYTES:
        yield Finding("warn", f"/dev/shm has {free / 1e6:.0f} MB free", "free some, or start the container with --shm-size=1g")


def _variables() -> Iterator[Finding]:
    if address := os.environ.get("RAY_ADDRESS"):
        yield Finding("warn", f"RAY_ADDRESS={address} is ignored", f"to run on that cluster, give --ray-address {address}")


def _try(seconds: float) -> Finding:
    """Start Ray in a separate process, and say whether it answered in time."""
    begun = time.monotonic()
    command = [sys.executable, "-c", _TRY]
    folder = tempfile.gettempdir()
    with running_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            kill_group(process)  # Ray's own processes notice its end, and end too
            error = last_line(process.communicate()[1])[:MAX_ERROR]
            text = f"a local Ray did not start within {seconds:.0f} s{f' ({error})' if error else ''}"
            return Finding("fail", text, _remedy(error))
    took = time.monotonic() - begun
    if process.returncode != 0:
        error = last_line(err)[:MAX_ERROR]
        return Finding("fail", f"a local Ray cannot start ({error})", _remedy(error))
    text = f"a local Ray {out.split()[0]} starts, answers and ends in {took:.0f} s"
    if took < SLOW_SECONDS:
        return Finding("pass", text)
    return Finding("warn", text, "the machine is busy, or its disk is slow")


def _remedy(error: str) -> str:
    remedy = next((remedy for pattern, remedy in REMEDIES if re.search(pattern, error)), None)
    return remedy or "use --on inline meanwhile; while Ray starts, its logs are below the temporary folder"
