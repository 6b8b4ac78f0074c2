"""Can a local Ray start here? A small one is tried in a process of its own, for a bounded time, and a failure is explained."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from umd_bench.orchestration.doctor.finding import Finding

TRY_SECONDS = 60.0
SLOW_SECONDS = 20.0
SOCKET_PATH_BYTES = 107  # of a Unix socket
SOCKET = "/ub-ray-12345678/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store"  # below the temporary folder
SHM_BYTES = 200 * 2**20  # the object store that a sweep asks for, twice
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
    word = ray.get(ray.remote(num_cpus=1)(lambda: "answered").remote(), timeout=40)
    print(ray.__version__, word)
finally:
    own.close()
"""
# What is found in a failure's words -> what to do.
REMEDIES = (
    (r"AF_UNIX path|path.*too long|socket path", "Ray's socket paths are too long: set TMPDIR to a short folder such as /tmp"),
    (r"shm|shared memory|plasma|No space left", "free space in /dev/shm, or start the container with --shm-size=1g"),
    (r"token|auth", "a Ray token file or RAY_AUTH_* variable is in the way: remove ~/.ray/auth_token or unset them"),
    (r"[Vv]ersion", "reinstall ray: pip install --force-reinstall ray"),
    (r"Permission denied|Read-only", "give a temporary folder that can be written: set TMPDIR"),
    (r"[Cc]onnect|timed out|Address|address", "processes cannot talk on 127.0.0.1: allow loopback connections"),
    (r"No module named", "ray is not installed whole: pip install ray again"),
)


def check_ray(*, seconds: float = TRY_SECONDS) -> Iterator[Finding]:
    """What a Ray needs, then whether one starts and answers within ``seconds``."""
    yield from _temporary_folder()
    yield from _shared_memory()
    yield from _variables()
    yield _try(seconds)


def _temporary_folder() -> Iterator[Finding]:
    folder = tempfile.gettempdir()
    if len(os.fsencode(folder + SOCKET)) > SOCKET_PATH_BYTES:
        yield Finding(
            "fail", f"the temporary folder {folder} has too long a path for Ray's sockets", "set TMPDIR to a short one: /tmp"
        )
    elif not os.access(folder, os.W_OK):
        yield Finding("fail", f"the temporary folder {folder} cannot be written", "set TMPDIR to one that can be")


def _shared_memory() -> Iterator[Finding]:
    shm = Path("/dev/shm")
    if not shm.is_dir():
        yield Finding("warn", "there is no /dev/shm: Ray keeps its objects on disk", "start the container with --shm-size=1g")
    elif (free := shutil.disk_usage(shm).free) < SHM_BYTES:
        yield Finding("warn", f"/dev/shm has {free / 1e6:.0f} MB free", "free some, or start the container with --shm-size=1g")


def _variables() -> Iterator[Finding]:
    if address := os.environ.get("RAY_ADDRESS"):
        yield Finding("warn", f"RAY_ADDRESS={address} is not used by itself", f"to run there, give --ray-address {address}")


def _try(seconds: float) -> Finding:
    begun = time.monotonic()
    command = [sys.executable, "-c", _TRY]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tempfile.gettempdir()
    ) as tried:
        try:
            out, err = tried.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(tried.pid, signal.SIGKILL)  # Ray's own processes see that and end
            out, err = tried.communicate()
            words = _last(err)
            return Finding(
                "fail", f"a local Ray did not start within {seconds:.0f} s{f' ({words})' if words else ''}", _remedy(words)
            )
    took = time.monotonic() - begun
    if tried.returncode != 0:
        words = _last(err)
        return Finding("fail", f"a local Ray cannot start ({words})", _remedy(words))
    what = f"a local Ray {out.split()[0]} starts, answers and ends in {took:.0f} s"
    if took < SLOW_SECONDS:
        return Finding("pass", what)
    return Finding("warn", what, "the machine is busy, or its disk is slow")


def _last(text: str) -> str:
    """The last thing that was said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else ""


def _remedy(words: str) -> str:
    found = next((remedy for pattern, remedy in REMEDIES if re.search(pattern, words)), None)
    return found or "use --on inline meanwhile; Ray's own logs are below the temporary folder while it tries"
