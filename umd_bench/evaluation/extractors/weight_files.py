"""Weight files that do not come with the package: their folder, their SHA-256, and their download.

Only :func:`fetch` uses the network, and only ``umd-bench extractor fetch`` calls it.
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


class MissingWeightsError(UserError):
    """This machine has no weights of an extractor; ``how_to_get`` is the sentence part that says how to get them."""

    def __init__(self, extractor: str, where: str, how_to_get: str) -> None:
        self.how_to_get = how_to_get
        super().__init__(f"{extractor} has no weights {where}: {how_to_get}")


def weights_folder() -> Path:
    """The folder for weights that a person puts there or fetches: $UMD_BENCH_WEIGHTS, else ``~/.cache/umd-bench/weights``."""
    stated = os.environ.get(VARIABLE)
    return Path(stated).expanduser() if stated else Path.home() / ".cache" / "umd-bench" / "weights"


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex. Raises ``OSError``."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Published:
    """A weight file that can be downloaded: its address, the path it is saved to, and its SHA-256."""

    address: str
    target: Path
    sha256: str


def fetch(address: str, target: Path, sha256: str, advance: Callable[[int, int], None]) -> bool:
    """Download ``address`` to ``target``; False if ``target`` already has this SHA-256 and nothing was downloaded.

    ``target`` appears whole, and only with the right hash. ``advance(done, total)`` receives bytes; ``total`` is 0 if the
    server does not state it. Raises :class:`UserError` for an address that does not answer, a folder that cannot be written,
    and a file of another hash; then no file is left behind.
    """
    if target.exists() and file_sha256(target) == sha256:
        return False
    temporary: str | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        with os.fdopen(handle, "wb") as file, urllib.request.urlopen(address, timeout=_TIMEOUT_S) as response:
            total, done, digest = int(response.headers.get("Content-Length") or 0), 0, hashlib.sha256()
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                digest.update(chunk)
                done += len(chunk)
                advance(done, total)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise UserError(
                f"{address} is not the published file (SHA-256 {digest.hexdigest()[:12]}, expected {sha256[:12]}): "
                "nothing was kept"
            )
        Path(temporary).chmod(0o644)  # mkstemp makes a private file, and others may read a shared folder
        Path(temporary).replace(target)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise UserError(f"{address} cannot be fetched into {target.parent} ({error}): nothing was kept") from None
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)  # it is already gone after the rename
    return True
