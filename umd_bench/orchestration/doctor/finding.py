"""The finding of one of the doctor's checks: a line that passes, warns or fails, with a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rich.markup import escape

Level = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """``what`` was found, and the ``remedy`` if that is a problem. ``warn`` may disturb a sweep, ``fail`` would stop it."""

    level: Level
    what: str
    remedy: str = ""

    @property
    def failed(self) -> bool:
        """Whether this stops a sweep."""
        return self.level == "fail"

    def line(self) -> str:
        """The finding as rich markup."""
        colour = {"pass": "green", "warn": "yellow", "fail": "red"}[self.level]
        return f"[{colour}]{self.level}[/]  {escape(self.what)}{f': {escape(self.remedy)}' if self.remedy else ''}"
