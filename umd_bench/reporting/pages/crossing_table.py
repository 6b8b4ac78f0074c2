"""The table of the points where the order of two arms changes over training, in each format, with the same cells everywhere."""

from __future__ import annotations

import pandas as pd
import rich.table

from umd_bench.reporting.notation.formatting import MISSING
from umd_bench.reporting.pages.table_formats import bullets, empty_terminal_table, great_table, latex_table, markdown_table
from umd_bench.reporting.statistics.curves import Crossing, Curves

TITLE = "Where the order of two arms changes"
NONE = "No two curves cross."


def cells(curves: Curves) -> pd.DataFrame:
    """One row per crossing: the column, who is ahead before and after, images seen, the interval, and how many seeds agree."""
    names = ["read-out", "ahead before", "ahead after", "at images seen", "95% interval", "seeds that cross"]
    rows = [
        [
            one.column.title.removesuffix(" %"),
            one.before,
            one.after,
            f"{one.images:,.0f}",
            _interval(one),
            f"{one.crossing_seeds} of {one.n}",
        ]
        for one in curves.crossings
    ]
    return pd.DataFrame(rows, columns=names, dtype="string")


def markdown(curves: Curves) -> str:
    """A section of a Markdown page: heading, table, notes."""
    table = markdown_table(cells(curves)) if curves.crossings else [NONE]
    return "\n".join(["", f"## {TITLE}", "", *table, "", *bullets(curves.notes)]) + "\n"


def latex(curves: Curves, name: str) -> str:
    """The table as LaTeX, to follow the sweep's first table; ``name`` is the sweep's."""
    if not curves.crossings:
        return f"\n% {NONE}\n"
    return "\n" + latex_table(great_table(cells(curves), 3, TITLE, "", curves.notes, _id(name)))


def html(curves: Curves, name: str) -> str:
    """The table as HTML, to follow the sweep's first table; ``name`` is the sweep's."""
    if not curves.crossings:
        return f"\n<p>{NONE}</p>"
    return "\n" + str(great_table(cells(curves), 3, TITLE, "", curves.notes, _id(name)).as_raw_html()).strip()


def terminal(curves: Curves, width: int) -> rich.table.Table:
    """The table for a terminal of ``width`` characters."""
    frame = cells(curves)
    table = empty_terminal_table(frame, 3, len(frame), TITLE, width)
    for texts in frame.itertuples(index=False):
        table.add_row(*map(str, texts))
    return table


def _interval(crossing: Crossing) -> str:
    if crossing.n < 2:
        return MISSING
    low, high = ("open" if bound is None else f"{bound:,.0f}" for bound in (crossing.low, crossing.high))
    return f"{low} to {high}"


def _id(name: str) -> str:
    return f"umd-bench-{name}-crossings"
