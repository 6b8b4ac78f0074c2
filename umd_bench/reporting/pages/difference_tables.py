"""Differences to the baseline as a second table of the report, on every page that has the first: the same cells everywhere.

A cell is ``mean ± half-width`` of the paired differences and a mark where that interval leaves out 0; bold, too, where the
page can.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd
import rich.table
import rich.text
from great_tables import loc, style

from umd_bench.reporting.frames.naming import MISSING, axis_value, difference
from umd_bench.reporting.pages.tables import bullets, great_table, laid_out, latex_body, least_width, markdown_rows
from umd_bench.reporting.statistics.differences import MARKS, Difference, Differences
from umd_bench.reporting.statistics.summary import Column, Row


def title(found: Differences) -> str:
    """``Differences to sampler=ddim,steps=20``."""
    return f"Differences to {found.baseline}"


def cells(found: Differences, columns: Sequence[Column] | None = None) -> pd.DataFrame:
    """The table of ``columns`` or all as text, headers as column names, arms in the sweep's order."""
    shown = found.summary.columns if columns is None else columns
    rows = [_cells(found, arm, ones, shown) for arm, ones in found.rows]
    return pd.DataFrame(rows, columns=[*found.summary.axes, *(column.header for column in shown)], dtype="string")


def markdown(found: Differences) -> str:
    """A section of a Markdown page: heading, table with the marked cells in bold, notes."""
    frame = cells(found).map(lambda text: f"**{text}**" if _is_marked(text) else text)
    return "\n".join(["", f"## {title(found)}", "", *markdown_rows(frame), "", *bullets(found.notes)]) + "\n"


def latex(found: Differences) -> str:
    """A second table for the document."""
    frame = cells(found)
    for name in list(frame)[len(found.summary.axes) :]:
        frame[name] = frame[name].str.replace("^-", "−", regex=True)  # a minus, not a hyphen
    return "\n" + latex_body(great_table(frame, len(found.summary.axes), title(found), "", found.notes, _id(found)))


def html(found: Differences) -> str:
    """A second table for the page, marked cells in bold."""
    frame = cells(found)
    table = great_table(frame, len(found.summary.axes), title(found), "", found.notes, _id(found))
    for name in map(str, frame):
        marked = [place for place, text in enumerate(frame[name]) if _is_marked(text)]
        if marked:
            table = table.tab_style(style.text(weight="bold"), loc.body(columns=[name], rows=marked))
    return "\n" + str(table.as_raw_html()).strip()


def terminal(
    found: Differences, heading: str | None, width: int, columns: Sequence[Column], trials: Collection[str] | None = None
) -> rich.table.Table:
    """A table of ``columns`` for a terminal of ``width`` characters, of the arms with one of these ``trials`` or of all."""
    frame = cells(found, columns)
    table = laid_out(frame, len(found.summary.axes), len(frame), heading, width)
    for (arm, _), texts in zip(found.rows, frame.itertuples(index=False), strict=True):
        if trials is None or not set(arm.trials).isdisjoint(trials):
            table.add_row(*(rich.text.Text(text, style="bold") if _is_marked(text) else text for text in map(str, texts)))
    return table


def narrowest(found: Differences, columns: Sequence[Column]) -> int:
    """The characters a line that :func:`terminal` needs to keep words and numbers whole."""
    frame = cells(found, columns)
    return least_width(frame, len(found.summary.axes), len(frame))


def _cells(found: Differences, arm: Row, ones: dict[Column, Difference], columns: Sequence[Column]) -> list[str]:
    seeds = len(found.summary.sweep.seeds)
    return [*(axis_value(arm.axes[axis]) for axis in found.summary.axes), *(_cell(ones.get(c), c, seeds) for c in columns)]


def _cell(one: Difference | None, column: Column, seeds: int) -> str:
    if one is None or (one.paired.half is None and not one.same):
        return MISSING
    if one.same or one.paired.half is None:
        return "same"
    text = difference(one.paired.mean * column.scale, one.paired.half * column.scale, percent=column.percent)
    fewer = f" (n={one.paired.n})" if one.paired.n < seeds else ""
    return f"{text}{fewer}{f' {MARKS[one.verdict]}' if one.verdict else ''}"


def _is_marked(text: str) -> bool:
    return text.endswith(tuple(f" {mark}" for mark in MARKS.values()))


def _id(found: Differences) -> str:
    return f"umd-bench-{found.summary.sweep.name}-differences"
