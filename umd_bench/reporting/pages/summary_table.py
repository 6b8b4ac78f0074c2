"""A summary as Markdown, LaTeX, HTML and on the terminal, with the same cells everywhere.

A cell is ``mean ± half-width``, without the half-width for one seed. An arm with one seed, or with fewer seeds than the sweep
has, shows their number, as in ``(n=1)``. A cell that was not shown to be above its own untrained weights ends in a dagger.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import replace

import pandas as pd
import rich.table
from great_tables import GT

from umd_bench.reporting.notation.formatting import MISSING, NOT_ABOVE, format_mean, format_value
from umd_bench.reporting.pages import table_formats
from umd_bench.reporting.pages.table_formats import (
    bullets,
    empty_terminal_table,
    great_table,
    latex_table,
    markdown_table,
    warning_lines,
)
from umd_bench.reporting.statistics.summary import Column, Estimate, Row, Summary


def cells(summary: Summary) -> pd.DataFrame:
    """The table as text, with headers as column names: arms in the sweep's order, then the comparison rows."""
    rows = [_cells(summary, row) for row in (*summary.arms, *summary.comparison_rows)]
    return pd.DataFrame(rows, columns=[*summary.axes, *(column.header for column in summary.columns)], dtype="string")


def markdown(summary: Summary, title: str) -> str:
    """A Markdown page: the tier's warning if there is one, title, question, table, notes."""
    question = [summary.sweep.question, ""] if summary.sweep.question else []
    lines = [*warning_lines(summary.warning), f"# {title}", "", *question, *markdown_table(cells(summary))]
    return "\n".join([*lines, "", *bullets(summary.notes)]) + "\n"


def latex(summary: Summary, title: str) -> str:
    """A table for a document that uses the packages booktabs and caption."""
    warning = f"% {summary.warning}\n" if summary.warning else ""
    return f"{warning}% needs \\usepackage{{booktabs}} and \\usepackage{{caption}}\n" + latex_table(
        _great_table(summary, title, " ".join(filter(None, (summary.warning, summary.sweep.question))))
    )


def html_page(summary: Summary, title: str, figure: str | None, more: str = "") -> str:
    """An HTML page: the table with its notes, then the HTML in ``more``, then the picture at the address ``figure``."""
    table = str(_great_table(summary, title, summary.sweep.question).as_raw_html()).strip() + more
    picture = "" if figure is None else f'<p><img src="{html.escape(figure)}" alt="{html.escape(title)}" width="900"></p>\n'
    head = f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>{html.escape(title)}</title>\n'
    style = "<style>body { font-family: system-ui, sans-serif; max-width: 1400px; margin: 2em auto; }\n"
    style += "td.gt_right { white-space: nowrap; }</style>\n"  # a number, its interval and its mark stay on one line
    warning = f"<p><strong>{html.escape(summary.warning)}</strong></p>\n" if summary.warning else ""
    return f"{head}{style}<body>\n{warning}{table}\n{picture}</body>\n</html>\n"


def terminal(summary: Summary, title: str, width: int, columns: Sequence[Column] | None = None) -> rich.table.Table:
    """A table of ``columns`` (default: all) for a terminal of ``width`` characters.

    If ``width`` is at least :func:`min_width`, headers and names of rows are wrapped only between words, and numbers stay
    whole. On a narrower terminal words and numbers may be broken, but nothing is cut off.
    """
    shown = replace(summary, columns=tuple(columns)) if columns is not None else summary
    table = empty_terminal_table(cells(shown), len(shown.axes), len(shown.arms), title, width)
    for row in (*shown.arms, *shown.comparison_rows):
        if row.name == "arm" or any(column in row.estimates for column in shown.columns):
            style = None if row.name == "arm" else "dim"
            table.add_row(*_cells(shown, row), style=style, end_section=row is shown.arms[-1])
    return table


def min_width(summary: Summary, columns: Sequence[Column] | None = None) -> int:
    """The characters per line that :func:`terminal` needs to break no word and no number."""
    shown = replace(summary, columns=tuple(columns)) if columns is not None else summary
    return table_formats.min_width(cells(shown), len(shown.axes), len(shown.arms))


def format_estimate(estimate: Estimate, column: Column) -> str:
    """``mean ± half-width`` in the unit that the column's header names."""
    half = None if estimate.half is None else estimate.half * column.scale
    return format_mean(estimate.mean * column.scale, half, percent=column.percent)


def _cells(summary: Summary, row: Row) -> list[str]:
    if row.name == "arm":
        labels = [format_value(row.axes[axis]) for axis in summary.axes]
    else:
        labels = [row.name, *[""] * (len(summary.axes) - 1)]
    return labels + [_cell(summary, row, column) for column in summary.columns]


def _cell(summary: Summary, row: Row, column: Column) -> str:
    estimate = row.estimates.get(column)
    if estimate is None:
        return MISSING
    text = format_estimate(estimate, column)
    complete = estimate.n == len(summary.sweep.seeds) and estimate.n > 1
    fewer = "" if complete or row.name != "arm" else f" (n={estimate.n})"
    return text + fewer + (f" {NOT_ABOVE}" if row.above_untrained(column) is False else "")


def _great_table(summary: Summary, title: str, subtitle: str) -> GT:
    name = f"umd-bench-{summary.sweep.name}"
    return great_table(cells(summary), len(summary.axes), title, subtitle, summary.notes, name)
