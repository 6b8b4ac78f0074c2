"""A frame of text as Markdown, LaTeX, HTML and on the terminal, and a frame of numbers as CSV."""

from __future__ import annotations

import re
from collections.abc import Sequence

import pandas as pd
import rich.box
import rich.table
from great_tables import GT

WIDEST = 24  # characters: a longer word or name may be broken in a terminal's table
# LaTeX has these characters under other names.
_LATEX = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$", "–": "--", "é": r"\'e", "×": r"$\times$", "³": r"$^3$"}
_LATEX |= {"●": r"$\bullet$", "○": r"$\circ$", "≠": r"$\neq$", "−": r"$-$", "†": r"$\dagger$"}


def csv(frame: pd.DataFrame) -> str:
    """Numbers in full precision, ``\\n`` line ends, an empty cell for a missing value."""
    return frame.to_csv(index=False, lineterminator="\n")


def warning_lines(warning: str) -> list[str]:
    """The first lines of a Markdown page with this warning, none if it is empty."""
    return [f"**{warning}**", ""] if warning else []


def bullets(notes: Sequence[str]) -> list[str]:
    """Notes as the lines of a Markdown list."""
    return [f"- {_escape(note)}" for note in notes]


def markdown_table(frame: pd.DataFrame) -> list[str]:
    """A frame of text as the lines of a Markdown table: the first column aligned left, the others right."""
    widths = [max(len(str(name)), *(len(text) for text in frame[name]), 3) for name in frame]
    rule = [":" + "-" * (w - 1) if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    rows = [list(map(str, frame)), rule, *(list(map(str, row)) for row in frame.itertuples(index=False))]
    return [
        "| " + " | ".join(_pad(text, w, i) for i, (text, w) in enumerate(zip(row, widths, strict=True))) + " |" for row in rows
    ]


def great_table(frame: pd.DataFrame, labels: int, title: str, subtitle: str, notes: Sequence[str], name: str) -> GT:
    """A frame of text with title and notes; its first ``labels`` columns name the rows, ``name`` is its HTML id."""
    table = GT(frame, id=name).tab_header(title, subtitle or None)
    table = table.cols_align("right", columns=list(map(str, frame))[labels:])
    for note in notes:
        table = table.tab_source_note(note)
    return table.tab_options(table_font_size="14px")


def latex_table(table: GT) -> str:
    """A LaTeX table environment, in ASCII."""
    body = str(table.as_latex())
    for sign, command in _LATEX.items():
        body = body.replace(sign, command)
    return body.strip() + "\n"


def empty_terminal_table(rows: pd.DataFrame, labels: int, arms: int, title: str | None, width: int) -> rich.table.Table:
    """A table for a terminal of ``width`` characters, with columns wide enough for the text in ``rows``, and no row yet.

    The first ``labels`` columns name the rows; the names in the first ``arms`` rows are not broken.
    """
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    least = _min_widths(rows, labels, arms)
    left = width - min_width(rows, labels, arms)
    for place, name in enumerate(rows):
        header = _wrapped_header(str(name))
        natural = max(map(len, [*header.splitlines(), *rows[name]]))
        more = min(natural - least[place], left) if left > 0 else 0
        left -= more
        fixed = least[place] + more if left >= 0 else None
        table.add_column(header, justify="right" if place else "left", overflow="fold", width=fixed)
    return table


def min_width(rows: pd.DataFrame, labels: int, arms: int) -> int:
    """The characters per line that :func:`empty_terminal_table` needs to break no word and no number."""
    return sum(width + 2 for width in _min_widths(rows, labels, arms)) + 1  # two spaces between columns, one before


def _min_widths(rows: pd.DataFrame, labels: int, arms: int) -> list[int]:
    """For each column the length of its longest word, number or arm name."""
    widths = []
    for place, name in enumerate(rows):
        whole = rows[name].iloc[:arms] if place < labels else rows[name]
        words = " ".join([_wrapped_header(str(name)), *rows[name].iloc[: 0 if place else None]]).split()
        widths.append(min(max(map(len, [*whole, *words])), WIDEST))
    return widths


def _wrapped_header(header: str) -> str:
    """The header with line breaks: ``accuracy_`` over ``digits_cnn % ↑``, ``probe`` over ``10-shot % ↑``."""
    header = re.sub(r"\b(fd_inf|fd|kid|is|accuracy|precision|recall|memorised)_(?!inf_)(?=\w)", r"\1_\n", header)
    return re.sub(r"(?<=[a-z]) (?=\d|probe)", "\n", header)


def _pad(text: str, width: int, place: int) -> str:
    text = _escape(text)
    return text.ljust(width) if place == 0 else text.rjust(width)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
