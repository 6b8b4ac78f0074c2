"""Which code runs: the commit of the checkout, or of the checkout that a frozen copy was made from. Imports no torch."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import umd_bench

COMMIT_FILE = "COMMIT"  # next to a frozen copy of the package


@cache
def commit() -> str | None:
    """The commit's hash, with ``-dirty`` if the checkout has uncommitted changes; None for an installed package."""
    folder = Path(umd_bench.__file__).parent
    frozen = folder.parent / COMMIT_FILE
    if frozen.is_file():
        return frozen.read_text().strip() or None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
