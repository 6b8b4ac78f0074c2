"""The code that queued jobs run: a copy of the package, made when they are submitted.

An editable install changes under a job's feet, and so does an installed package when it is upgraded. Jobs therefore always run
the copy below ``results/jobs/code/<hash>``, which stands first on their path; other libraries are those of the environment that
submitted them.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path

import umd_bench
from umd_bench.orchestration.stage_process.provenance import COMMIT_FILE, commit

PACKAGE = Path(umd_bench.__file__).parent


def freeze_code(folder: Path) -> Path:
    """Copy the package below ``folder`` unless that very content is there; the directory to put on the path."""
    names = sorted(p.relative_to(PACKAGE.parent) for p in PACKAGE.rglob("*") if p.is_file() and "__pycache__" not in p.parts)
    contents = {name: (PACKAGE.parent / name).read_bytes() for name in names}  # read once: what is hashed is what is copied
    contents[Path(COMMIT_FILE)] = (commit() or "").encode()
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    target = folder / digest.hexdigest()[:16]
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        for name, content in contents.items():
            (beside / name).parent.mkdir(parents=True, exist_ok=True)
            (beside / name).write_bytes(content)
        beside.chmod(0o755)
        beside.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another command was first, which is as good
            raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return target
