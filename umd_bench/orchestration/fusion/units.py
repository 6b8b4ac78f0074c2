"""A unit: several stages that an executor is given as if they were one, so that they are trained as one.

It is named like a stage and never one. Its folder ``fusing/units/<name>`` below the results lists the stages; a file there asks
one of them to stop, so that the word reaches it in whatever process it runs.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from umd_bench.store.files import read_json, write_json

LOOK_SECONDS = 0.3  # between two looks at who is asked to stop
RUN_UNIT = "umd_bench.orchestration.fusion.run_fused:run_unit"
_PREFIX = "unit-"
_ASKED = "stop-"


def is_unit(key: str) -> bool:
    """Whether what an executor was given is a unit, and not a stage."""
    return key.startswith(_PREFIX)


class Unit:
    """The unit of that name below the results folder ``root``. Making the object touches no file."""

    def __init__(self, root: Path, name: str) -> None:
        self.name, self._folder = name, root / "fusing" / "units" / name
        self._asked: set[str] = set()
        self._look_at = 0.0

    @classmethod
    def create(cls, root: Path, keys: Sequence[str]) -> Unit:
        """A new one of these stages."""
        unit = cls(root, f"{_PREFIX}{secrets.token_hex(8)}")
        write_json(unit._folder / "keys.json", list(keys))
        return unit

    @property
    def keys(self) -> list[str]:
        """Its stages."""
        keys: list[str] = read_json(self._folder / "keys.json") or []
        return keys

    def ask_to_stop(self, key: str) -> None:
        """Let the process that trains the stage know."""
        if self._folder.is_dir():
            (self._folder / f"{_ASKED}{key}").touch()

    def is_asked_to_stop(self, key: str) -> bool:
        """Whether somebody did; the folder is looked at now and then."""
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_SECONDS
            self._asked = {path.name.removeprefix(_ASKED) for path in self._folder.glob(f"{_ASKED}*")}
        return key in self._asked

    def remove(self) -> None:
        """Forget it; its stages stay."""
        shutil.rmtree(self._folder, ignore_errors=True)
