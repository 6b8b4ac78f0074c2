"""A summary as Markdown, CSV, LaTeX, HTML and on the terminal: the same cells everywhere.

A cell is ``mean ± half-width``; one seed gives ``(n=1)`` and no interval, fewer seeds than the sweep has say how many.
"""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import rich.box
import rich.table
from great_tables import GT

from umd_bench.reporting.frames.naming import MISSING, axis_value, number
from umd_bench.reporting.statistics.summary import Column, Estimate, Row, Summary

WIDEST = 24  # characters that a column of a terminal's table keeps together
# LaTeX has these characters under other names.
_LATEX = {"↑": r"$\uparrow$", "↓": r"$\downarrow$", "±": r"$\pm$", "–": "--", "é": r"\'e", "×": r"$\times$", "³": r"$^3$"}
_LATEX |= {"●": r"$\bullet$", "○": r"$\circ$", "≠": r"$\neq$", "−": r"$-$"}


def cells(summary: Summary) -> pd.DataFrame:
    """The table as text, headers as column names: arms in the sweep's order, then the reference rows."""
    rows = [_cells(summary, row) for row in (*summary.arms, *summary.references)]
    return pd.DataFrame(rows, columns=[*summary.axes, *(column.header for column in summary.columns)], dtype="string")


def markdown(summary: Summary, title: str) -> str:
    """A Markdown page: title, question, table, notes."""
    lines = [
        f"# {title}",
        "",
        *([summary.sweep.question, ""] if summary.sweep.question else []),
        *markdown_rows(cells(summary)),
    ]
    return "\n".join([*lines, "", *bullets(summary.notes)]) + "\n"


def bullets(notes: Sequence[str]) -> list[str]:
    """Notes as the lines of a Markdown list."""
    return [f"- {_escape(note)}" for note in notes]


def markdown_rows(frame: pd.DataFrame) -> list[str]:
    """A frame of text as the lines of a Markdown table, first column left, the others right."""
    widths = [max(len(str(name)), *(len(text) for text in frame[name]), 3) for name in frame]
    rule = [":" + "-" * (w - 1) if i == 0 else "-" * (w - 1) + ":" for i, w in enumerate(widths)]
    rows = [list(map(str, frame)), rule, *(list(map(str, row)) for row in frame.itertuples(index=False))]
    return [
        "| " + " | ".join(_pad(text, w, i) for i, (text, w) in enumerate(zip(row, widths, strict=True))) + " |" for row in rows
    ]


def csv(frame: pd.DataFrame) -> str:
    """Full precision, ``\\n`` line ends, empty cells for what is missing."""
    return frame.to_csv(index=False, lineterminator="\n")


def latex(summary: Summary, title: str) -> str:
    """A table for a document that uses the packages booktabs and caption."""
    return "% needs \\usepackage{booktabs} and \\usepackage{caption}\n" + latex_body(_great_table(summary, title))


def latex_body(table: GT) -> str:
    """A table environment of LaTeX, in ASCII."""
    body = str(table.as_latex())
    for sign, command in _LATEX.items():
        body = body.replace(sign, command)
    return body.strip() + "\n"


def page(summary: Summary, title: str, figure: str | None, more: str = "") -> str:
    """A whole HTML page: the table with its notes, ``more`` HTML, and the picture at the address ``figure`` below them."""
    table = str(_great_table(summary, title).as_raw_html()).strip() + more
    picture = "" if figure is None else f'<p><img src="{html.escape(figure)}" alt="{html.escape(title)}" width="900"></p>\n'
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
    style = "<style>body { font-family: system-ui, sans-serif; max-width: 1100px; margin: 2em auto; }</style>\n"
    return f"{head}{style}<body>\n{table}\n{picture}</body>\n</html>\n"


def terminal(summary: Summary, title: str, width: int, columns: Sequence[Column] | None = None) -> rich.table.Table:
    """A table of ``columns`` or of all for a terminal of ``width`` characters.

    Headers and the names of references are wrapped at words and numbers are not, where there is room (:func:`narrowest`);
    where there is none all is folded, and nothing cut off.
    """
    shown = replace(summary, columns=tuple(columns)) if columns is not None else summary
    table = laid_out(cells(shown), len(shown.axes), len(shown.arms), title, width)
    for row in (*shown.arms, *shown.references):
        if row.name == "arm" or any(column in row.estimates for column in shown.columns):
            style = None if row.name == "arm" else "dim"
            table.add_row(*_cells(shown, row), style=style, end_section=row is shown.arms[-1])
    return table


def narrowest(summary: Summary, columns: Sequence[Column] | None = None) -> int:
    """The characters a line that :func:`terminal` needs to keep words and numbers whole."""
    shown = replace(summary, columns=tuple(columns)) if columns is not None else summary
    return least_width(cells(shown), len(shown.axes), len(shown.arms))


def laid_out(rows: pd.DataFrame, labels: int, arms: int, title: str | None, width: int) -> rich.table.Table:
    """A table for a terminal of ``width`` characters with the columns that ``rows`` of text need, and no row yet.

    The first ``labels`` columns say what a row is; of these the first ``arms`` rows are kept whole.
    """
    table = rich.table.Table(title=title, box=rich.box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    least = _least_widths(rows, labels, arms)
    left = width - least_width(rows, labels, arms)
    for place, name in enumerate(rows):
        broken = _broken(str(name))
        natural = max(map(len, [*broken.splitlines(), *rows[name]]))
        more = min(natural - least[place], left) if left > 0 else 0
        left -= more
        fixed = least[place] + more if left >= 0 else None
        table.add_column(broken, justify="right" if place else "left", overflow="fold", width=fixed)
    return table


def least_width(rows: pd.DataFrame, labels: int, arms: int) -> int:
    """The characters a line that :func:`laid_out` needs to keep words and numbers whole."""
    return sum(width + 2 for width in _least_widths(rows, labels, arms)) + 1  # two spaces between columns, one before


def _least_widths(rows: pd.DataFrame, labels: int, arms: int) -> list[int]:
    """Of each column: its longest word, number or name of an arm."""
    widths = []
    for place, name in enumerate(rows):
        whole = rows[name].iloc[:arms] if place < labels else rows[name]
        words = " ".join([_broken(str(name)), *rows[name].iloc[: 0 if place else None]]).split()
        widths.append(min(max(map(len, [*whole, *words])), WIDEST))
    return widths


def _broken(header: str) -> str:
    """The header with line ends where it is wrapped: ``accuracy_`` over ``digits_cnn % ↑``, ``probe`` over ``10-shot % ↑``."""
    header = re.sub(r"\b(fd_inf|fd|kid|is|accuracy|precision|recall|memorised)_(?!inf_)(?=\w)", r"\1_\n", header)
    return re.sub(r"(?<=[a-z]) (?=\d|probe)", "\n", header)


def value(estimate: Estimate, column: Column) -> str:
    """``mean ± half-width`` in the unit that the column's header names."""
    half = None if estimate.half is None else estimate.half * column.scale
    return number(estimate.mean * column.scale, half, percent=column.percent)


def _cells(summary: Summary, row: Row) -> list[str]:
    if row.name == "arm":
        labels = [axis_value(row.axes[axis]) for axis in summary.axes]
    else:
        labels = [row.name, *[""] * (len(summary.axes) - 1)]
    return labels + [_cell(summary, row, column) for column in summary.columns]


def _cell(summary: Summary, row: Row, column: Column) -> str:
    estimate = row.estimates.get(column)
    if estimate is None:
        return MISSING
    text = value(estimate, column)
    complete = estimate.n == len(summary.sweep.seeds) and estimate.n > 1
    return text if complete or row.name != "arm" else f"{text} (n={estimate.n})"


def great_table(frame: pd.DataFrame, labels: int, title: str, subtitle: str, notes: Sequence[str], name: str) -> GT:
    """A frame of text, whose first ``labels`` columns say what a row is, under a title and over notes; ``name`` is its id."""
    table = GT(frame, id=name).tab_header(title, subtitle or None)
    table = table.cols_align("right", columns=list(map(str, frame))[labels:])
    for note in notes:
        table = table.tab_source_note(note)
    return table.tab_options(table_font_size="14px")


def _great_table(summary: Summary, title: str) -> GT:
    name = f"umd-bench-{summary.sweep.name}"
    return great_table(cells(summary), len(summary.axes), title, summary.sweep.question, summary.notes, name)


def _pad(text: str, width: int, place: int) -> str:
    text = _escape(text)
    return text.ljust(width) if place == 0 else text.rjust(width)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
