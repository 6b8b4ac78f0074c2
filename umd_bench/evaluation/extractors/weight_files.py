"""Weight files that do not come with the package: where they lie, that they are the ones meant, and the one download there is.

Nothing here reaches for the network but :func:`fetch`, which only the verb of that name calls.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError

VARIABLE = "UMD_BENCH_WEIGHTS"
_CHUNK = 1 << 20
_TIMEOUT_S = 30


def weights_folder() -> Path:
    """Where weights are kept that a person put there or fetched: $UMD_BENCH_WEIGHTS, else ``~/.cache/umd-bench/weights``."""
    stated = os.environ.get(VARIABLE)
    return Path(stated).expanduser() if stated else Path.home() / ".cache" / "umd-bench" / "weights"


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Published:
    """A weight file that can be downloaded: where from, where to, and its SHA-256."""

    address: str
    target: Path
    sha256: str


def fetch(address: str, target: Path, sha256: str, advance: Callable[[int, int], None]) -> bool:
    """Download ``address`` to ``target``, which appears only when its SHA-256 is ``sha256``; False where it lies there already.

    ``advance(done, total)`` is told the bytes so far and of all, 0 where the server does not say. Raises :class:`UserError`
    for an address that does not answer, a folder that cannot be written, and a file of another hash, which is not kept.
    """
    if target.exists() and file_sha256(target) == sha256:
        return False
    name: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(address, timeout=_TIMEOUT_S) as answer:
            total, done, digest = int(answer.headers.get("Content-Length") or 0), 0, hashlib.sha256()
            while chunk := answer.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                advance(done, total)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise UserError(
                f"what {address} gave is not the file that was asked for (SHA-256 {digest.hexdigest()[:12]}, "
                f"expected {sha256[:12]}): nothing was kept"
            )
        Path(name).chmod(0o644)  # others may read a shared folder; mkstemp makes a private file
        Path(name).replace(target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"{address} cannot be fetched into {target.parent} ({error}): nothing was kept") from None
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)  # gone already where the rename went through
    return True
