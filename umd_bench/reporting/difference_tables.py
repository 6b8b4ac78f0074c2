"""Differences to the baseline as a second table of the report, on every page that has the first: the same cells everywhere.

A cell is ``mean ± half-width`` of the paired differences and a mark where that interval leaves out 0; bold, too, where the
page can.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd
import rich.box
import rich.table
import rich.text
from great_tables import loc, style

from umd_bench.reporting.differences import MARKS, Difference, Differences
from umd_bench.reporting.naming import MISSING, axis_value, difference
from umd_bench.reporting.summary import Column, Row
from umd_bench.reporting.tables import bullets, folded, great_table, latex_body, markdown_rows


def title(found: Differences) -> str:
    """``Differences to sampler=ddim,steps=20``."""
    return f"Differences to {found.baseline}"


def cells(found: Differences) -> pd.DataFrame:
    """The table as text, headers as column names, arms in the sweep's order."""
    rows = [_cells(found, arm, ones, found.summary.columns) for arm, ones in found.rows]
    return pd.DataFrame(rows, columns=[*found.summary.axes, *(c.header for c in found.summary.columns)], dtype="string")


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
    found: Differences, columns: Sequence[Column] | None = None, trials: Collection[str] | None = None
) -> rich.table.Table:
    """A table for the terminal, of ``columns`` or of all, and of the arms with one of these ``trials`` or of all."""
    shown = found.summary.columns if columns is None else columns
    table = rich.table.Table(title=title(found), box=rich.box.SIMPLE_HEAD, title_justify="left", padding=(0, 1, 0, 0))
    for place, name in enumerate([*found.summary.axes, *(column.header for column in shown)]):
        table.add_column(folded(name), justify="right" if place else "left", overflow="fold")
    for arm, ones in found.rows:
        if trials is None or not set(arm.trials).isdisjoint(trials):
            texts = _cells(found, arm, ones, shown)
            table.add_row(*(rich.text.Text(text, style="bold") if _is_marked(text) else text for text in texts))
    return table


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
