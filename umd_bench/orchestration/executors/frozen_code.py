"""The code that queued jobs, and workers of a running Ray cluster, run: a copy of the package, made by the command.

An editable install, or an upgrade, may change the package while a job waits in the queue. Jobs and workers therefore run the
copy in ``results/jobs/code/<hash>``, which comes first on their ``PYTHONPATH``. Other libraries come from the environment of
the command that submitted the jobs.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import umd_bench
from umd_bench.orchestration.stage_process.provenance import COMMIT_FILE, commit

PACKAGE = Path(umd_bench.__file__).parent


def code_folder(results: Path) -> Path:
    """Where a results folder keeps the copies of the package."""
    return results / "jobs" / "code"


def freeze_code(folder: Path) -> Path:
    """Copy the package into ``folder/<hash of its content>`` unless that copy exists; returns it, for ``PYTHONPATH``."""
    names = sorted(p.relative_to(PACKAGE.parent) for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    # Read once, so that the copied bytes are the hashed ones.
    contents = {name: (PACKAGE.parent / name).read_bytes() for name in names}
    contents[Path(COMMIT_FILE)] = (commit() or "").encode()
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    target = folder / digest.hexdigest()[:16]
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        for name, content in contents.items():
            (making / name).parent.mkdir(parents=True, exist_ok=True)
            (making / name).write_bytes(content)
        making.chmod(0o755)
        making.rename(target)
    except OSError:
        if not target.is_dir():  # if it exists, another command made the same copy first
            raise
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return target
