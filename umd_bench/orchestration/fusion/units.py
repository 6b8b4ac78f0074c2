"""A unit: several stages that an executor receives under one name and fuses.

The executor treats the name as a stage's key. The folder ``fusing/units/<name>`` in the results folder lists the unit's stages,
and a file there asks one of them to stop. The process that trains them reads that file.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from umd_bench.store.files import read_json, write_json

STOP_CHECK_SECONDS = 0.3  # between two checks for requests to stop
RUN_UNIT = "umd_bench.orchestration.fusion.run_fused:run_unit"
_PREFIX = "unit-"
_STOP_PREFIX = "stop-"


def is_unit(key: str) -> bool:
    """Whether an executor's key names a unit, not a stage."""
    return key.startswith(_PREFIX)


class Unit:
    """The unit ``name`` in the results folder ``root``. Creating the object touches no file."""

    def __init__(self, root: Path, name: str) -> None:
        self.name, self._folder = name, root / "fusing" / "units" / name
        self._stopping: set[str] = set()
        self._check_at = 0.0

    @classmethod
    def create(cls, root: Path, keys: Sequence[str]) -> Unit:
        """A new unit of these stages, with its folder."""
        unit = cls(root, f"{_PREFIX}{secrets.token_hex(8)}")
        write_json(unit._folder / "keys.json", list(keys))
        return unit

    @property
    def keys(self) -> list[str]:
        """The keys of its stages; empty if its folder is gone."""
        keys: list[str] = read_json(self._folder / "keys.json") or []
        return keys

    def request_stop(self, key: str) -> None:
        """Ask the process that trains the unit to stop one stage."""
        if self._folder.is_dir():
            (self._folder / f"{_STOP_PREFIX}{key}").touch()

    def stop_requested(self, key: str) -> bool:
        """Whether a stop of the stage was requested; the folder is read at most every ``STOP_CHECK_SECONDS``."""
        now = time.monotonic()
        if now >= self._check_at:
            self._check_at = now + STOP_CHECK_SECONDS
            self._stopping = {path.name.removeprefix(_STOP_PREFIX) for path in self._folder.glob(f"{_STOP_PREFIX}*")}
        return key in self._stopping

    def remove(self) -> None:
        """Delete the unit's folder; the run directories of its stages stay."""
        shutil.rmtree(self._folder, ignore_errors=True)
