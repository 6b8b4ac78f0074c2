"""Published numbers (``paper/*.yaml``), and a page that sets them beside this project's own numbers of the same methods.

The published numbers come from another data set, scale and protocol. So only the order of the methods can be compared, and
every page says so.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import yaml

from umd_bench.config.documents.fields import Frozen
from umd_bench.reporting.notation.formatting import MISSING, format_value
from umd_bench.reporting.pages.summary_table import format_estimate
from umd_bench.reporting.pages.table_formats import markdown_table, warning_lines
from umd_bench.reporting.statistics.summary import Row, Summary

FOLDER = Path(__file__).parent / "paper"
HEADERS = {"acc_100shot": "100-shot % ↑", "fid": "FID ↓", "is": "IS ↑"}
COMPARISON = (
    "The published models were trained on another data set at another scale and scored under another protocol: "
    "compare the order of the methods within a column, never a published number with one from here."
)


class PublishedRow(Frozen):
    """One published model; ``numbers`` are in the unit of the publication (accuracies in percent)."""

    method: str
    model: str
    numbers: dict[str, float]
    caveat: str = ""


class Published(Frozen):
    """One published table: its source, how its numbers were measured (``protocol``), and that nobody here verified them."""

    title: str
    source: str
    statement: str
    protocol: dict[str, str]
    rows: tuple[PublishedRow, ...]


def load(name: str) -> Published:
    """The published numbers of ``paper/<name>.yaml``."""
    return Published.model_validate(yaml.safe_load((FOLDER / f"{name}.yaml").read_text()))


def comparison_page(summary: Summary, tables: list[Published]) -> str:
    """A Markdown page: each published table, with this sweep's numbers of the same methods in further columns."""
    lines = [
        *warning_lines(summary.warning),
        f"# Published numbers beside {summary.sweep.name} (tier {summary.sweep.tier})",
        "",
        COMPARISON,
    ]
    for table in tables:
        lines += ["", f"## {table.title}", "", *markdown_table(_frame(summary, table)), ""]
        lines += [f"- {table.statement} Source: {table.source}."]
        lines += [f"- {HEADERS[name]} (published): {text}." for name, text in table.protocol.items()]
        lines += [f"- {row.model}: {row.caveat}." for row in table.rows if row.caveat]
    return "\n".join(lines) + "\n"


def _frame(summary: Summary, table: Published) -> pd.DataFrame:
    arms: dict[str, list[Row]] = {}
    for arm in summary.arms:
        arms.setdefault(str(arm.axes["method"]), []).append(arm)
    others = [axis for axis in summary.axes if axis != "method"]
    names = [name for name in HEADERS if any(name in row.numbers for row in table.rows)]
    rows = []
    for row in table.rows:
        cells = {"method": row.method, "published model": row.model}
        cells |= {f"published {HEADERS[name]}": _as_published(table, row, name) for name in names}
        own: list[Row | None] = [*arms.get(row.method, [])] or [None]
        for one in own:
            place = {f"here: {axis}": MISSING if one is None else format_value(one.axes[axis]) for axis in others}
            rows.append(cells | place | _own(summary, one))
    return pd.DataFrame(rows, dtype="string")


def _as_published(table: Published, row: PublishedRow, name: str) -> str:
    """The number, with the decimals that its column was published with."""
    decimals = max(len(repr(other.numbers[name]).partition(".")[2]) for other in table.rows if name in other.numbers)
    return f"{row.numbers[name]:.{decimals}f}" if name in row.numbers else MISSING


def _own(summary: Summary, arm: Row | None) -> dict[str, str]:
    cells = {}
    for column in summary.columns:
        estimate = None if arm is None else arm.estimates.get(column)
        cells[f"here: {column.header}"] = MISSING if estimate is None else format_estimate(estimate, column)
    return cells
