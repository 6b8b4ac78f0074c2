"""The terminal that every verb prints to."""

from __future__ import annotations

import sys

from rich.console import Console

PLAIN_WIDTH = 140  # characters per line, if the output goes to a file or a pipe
console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)


def print_line(text: str, *, on: Console = console) -> None:
    """Print one line as it is: without rich's markup, colours for numbers, or wrapping at the terminal's width."""
    on.print(text, highlight=False, soft_wrap=True, markup=False)


def print_warning(text: str) -> None:
    """Print a warning in yellow."""
    console.print(f"warning: {text}", style="yellow", highlight=False)
