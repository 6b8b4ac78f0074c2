"""The finding of one of the doctor's checks: a line that passes, warns or fails, with a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rich.markup import escape

Level = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Finding:
    """The ``text`` says what a check found, and ``remedy`` what to do about a problem.

    A problem of level ``warn`` may disturb a sweep; one of level ``fail`` would stop it.
    """

    level: Level
    text: str
    remedy: str = ""

    @property
    def failed(self) -> bool:
        """Whether this stops a sweep."""
        return self.level == "fail"

    def line(self) -> str:
        """The finding as rich markup."""
        colour = {"pass": "green", "warn": "yellow", "fail": "red"}[self.level]
        return f"[{colour}]{self.level}[/]  {escape(self.text)}{f': {escape(self.remedy)}' if self.remedy else ''}"
