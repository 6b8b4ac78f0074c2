"""The report's second table, differences to the baseline, in every format of the first table and with the same cells in all.

A cell is ``mean ± half-width`` of the paired differences, with a mark if that interval excludes 0. Marked cells are bold where
the format allows it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd
import rich.table
import rich.text
from great_tables import loc, style

from umd_bench.reporting.notation.formatting import MISSING, format_difference, format_value
from umd_bench.reporting.pages import table_formats
from umd_bench.reporting.pages.table_formats import bullets, empty_terminal_table, great_table, latex_table, markdown_table
from umd_bench.reporting.statistics.differences import MARKS, Difference, Differences
from umd_bench.reporting.statistics.summary import Column, Row


def title(differences: Differences) -> str:
    """``Differences to sampler=ddim,steps=20``."""
    return f"Differences to {differences.baseline}"


def cells(differences: Differences, columns: Sequence[Column] | None = None) -> pd.DataFrame:
    """The table of ``columns`` (default: all) as text, with headers as column names and arms in the sweep's order."""
    summary = differences.summary
    shown = summary.columns if columns is None else columns
    rows = [_cells(differences, arm, by_column, shown) for arm, by_column in differences.rows]
    return pd.DataFrame(rows, columns=[*summary.axes, *(column.header for column in shown)], dtype="string")


def markdown(differences: Differences) -> str:
    """A section of a Markdown page: heading, table with the marked cells in bold, notes."""
    frame = cells(differences).map(lambda text: f"**{text}**" if _is_marked(text) else text)
    lines = ["", f"## {title(differences)}", "", *markdown_table(frame), "", *bullets(differences.notes)]
    return "\n".join(lines) + "\n"


def latex(differences: Differences) -> str:
    """The table as LaTeX, to follow the first table."""
    frame = cells(differences)
    axes = len(differences.summary.axes)
    for name in list(frame)[axes:]:
        frame[name] = frame[name].str.replace("^-", "−", regex=True)  # a minus, not a hyphen
    return "\n" + latex_table(great_table(frame, axes, title(differences), "", differences.notes, _id(differences)))


def html(differences: Differences) -> str:
    """The table as HTML, to follow the first table, with the marked cells in bold."""
    frame = cells(differences)
    axes = len(differences.summary.axes)
    table = great_table(frame, axes, title(differences), "", differences.notes, _id(differences))
    for name in map(str, frame):
        marked = [place for place, text in enumerate(frame[name]) if _is_marked(text)]
        if marked:
            table = table.tab_style(style.text(weight="bold"), loc.body(columns=[name], rows=marked))
    return "\n" + str(table.as_raw_html()).strip()


def terminal(
    differences: Differences,
    heading: str | None,
    width: int,
    columns: Sequence[Column],
    trials: Collection[str] | None = None,
) -> rich.table.Table:
    """A table of ``columns`` for a terminal of ``width`` characters; if ``trials`` are given, only of their arms."""
    frame = cells(differences, columns)
    table = empty_terminal_table(frame, len(differences.summary.axes), len(frame), heading, width)
    for (arm, _), texts in zip(differences.rows, frame.itertuples(index=False), strict=True):
        if trials is None or not set(arm.trials).isdisjoint(trials):
            table.add_row(*(rich.text.Text(text, style="bold") if _is_marked(text) else text for text in map(str, texts)))
    return table


def min_width(differences: Differences, columns: Sequence[Column]) -> int:
    """The characters per line that :func:`terminal` needs to break no word and no number."""
    frame = cells(differences, columns)
    return table_formats.min_width(frame, len(differences.summary.axes), len(frame))


def _cells(differences: Differences, arm: Row, by_column: dict[Column, Difference], columns: Sequence[Column]) -> list[str]:
    summary = differences.summary
    labels = [format_value(arm.axes[axis]) for axis in summary.axes]
    return labels + [_cell(by_column.get(column), column, len(summary.sweep.seeds)) for column in columns]


def _cell(difference: Difference | None, column: Column, seeds: int) -> str:
    if difference is None or (difference.paired.half is None and not difference.same):
        return MISSING
    mean, half, n = difference.paired.mean, difference.paired.half, difference.paired.n
    if difference.same or half is None:
        return "same"
    text = format_difference(mean * column.scale, half * column.scale, percent=column.percent)
    fewer = f" (n={n})" if n < seeds else ""
    return f"{text}{fewer}{f' {MARKS[difference.verdict]}' if difference.verdict else ''}"


def _is_marked(text: str) -> bool:
    return text.endswith(tuple(f" {mark}" for mark in MARKS.values()))


def _id(differences: Differences) -> str:
    return f"umd-bench-{differences.summary.sweep.name}-differences"
