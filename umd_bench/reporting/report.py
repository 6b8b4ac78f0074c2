"""A sweep's report: its tables and its figure as files, on the terminal, and as JSON. Equal results give equal bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from rich.console import Console

from umd_bench.config.sweep.tier_card import read_card
from umd_bench.reporting.pages import cost_tables, crossing_table, difference_table, search_table, summary_table
from umd_bench.reporting.pages.curve_figure import curve_figure
from umd_bench.reporting.pages.figure_style import render
from umd_bench.reporting.pages.search_figure import search_figure
from umd_bench.reporting.pages.summary_figure import summary_figure
from umd_bench.reporting.pages.table_formats import csv, markdown_table, warning_lines
from umd_bench.reporting.statistics.curves import Curves, read_curves
from umd_bench.reporting.statistics.differences import Differences, compare_with_baseline
from umd_bench.reporting.statistics.search_summary import SearchSummary, summarize_search
from umd_bench.reporting.statistics.summary import Column, Summary, summarize
from umd_bench.store import sweep_dir
from umd_bench.store.files import write_atomic

WIDE = 120  # characters per line in a file or a pipe, or more if the table needs them


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report; the paths of a figure, a search, differences or crossings are None if the sweep has none."""

    long_csv: Path
    table_csv: Path
    table_md: Path
    table_tex: Path
    table_html: Path
    cost_csv: Path
    cost_md: Path
    figure_png: Path | None
    figure_pdf: Path | None
    search_md: Path | None = None
    search_csv: Path | None = None
    differences_csv: Path | None = None
    crossings_csv: Path | None = None


def write_report(summary: Summary, root: Path, *, out: Path | None = None, title: str | None = None) -> ReportPaths:
    """Write the report of a sweep below ``root`` into ``out`` (default: the sweep's own folder)."""
    name = summary.sweep.name
    return _write(
        summary, summarize_search(summary), compare_with_baseline(summary), out or sweep_dir(root, name), title or name
    )


def print_report(root: Path, sweep: str, console: Console, *, against: Mapping[str, Any] | None = None) -> None:
    """Write the report into the sweep's folder, then print its tables, its notes and the names of its files.

    ``against`` (axis -> value) is the arm to compare with; by default the sweep's ``report`` names it. Raises
    :class:`UserError` for an unknown sweep or arm, and if the sweep's ``report`` names an unknown metric.
    """
    summary = summarize(root, sweep, against=against)
    search, differences = summarize_search(summary), compare_with_baseline(summary)
    paths = _write(summary, search, differences, sweep_dir(root, sweep), sweep)
    if not console.is_terminal:  # a pipe or a log has no width of its own
        needed = WIDE if search is not None else summary_table.min_width(summary)
        needed = max(needed, WIDE if differences is None else difference_table.min_width(differences, summary.columns))
        console = Console(file=console.file, width=max(console.width, WIDE, needed))
    if summary.warning:
        console.print(summary.warning, style="bold", highlight=False, markup=False)
    title = summary.sweep.question or sweep
    if search is not None:  # only its best suggestions; the files have every trial
        console.print(search_table.terminal(search, title))
    else:
        for columns in _column_groups(summary, console.width, lambda c: summary_table.min_width(summary, c)):
            console.print(summary_table.terminal(summary, title, console.width, columns))
            title = ""
    _print_notes(summary.notes if search is None else search.notes, console)
    if differences is not None:
        best = None if search is None else {trial for row in search.best() for trial in row.suggestion.trials}
        _print_differences(differences, best, console)
    curves = read_curves(summary)
    if curves is not None:
        console.print()
        console.print(crossing_table.terminal(curves, console.width) if curves.crossings else crossing_table.NONE)
        _print_notes(curves.notes, console)
    tables = (paths.search_md, paths.table_md, paths.table_csv, paths.differences_csv, paths.crossings_csv, paths.table_html)
    shown = [path.name for path in (*tables, paths.figure_png, paths.cost_md) if path]
    console.print(f"\n{paths.table_md.parent}: {', '.join(shown)}", highlight=False, markup=False, soft_wrap=True)


def report_json(root: Path, sweep: str, *, against: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Write the report as :func:`print_report` does, with the same errors, and return it as plain values for programs.

    ``warning`` is a text if nothing can be concluded from the sweep's tier, else null; ``tier_status`` is the tier's status.
    ``rows`` has the rows of table.csv, one per arm and comparison row, in full precision, with null for a missing number.
    ``search`` has the rows of search.csv if the sweep is a search, ``differences`` the rows of differences.csv if there is a
    baseline, and ``crossings`` the rows of crossings.csv if the x axis is a snapshot. ``notes`` say what the numbers are, and
    ``files`` lists the report's files.
    """
    summary = summarize(root, sweep, against=against)
    search, differences = summarize_search(summary), compare_with_baseline(summary)
    curves = read_curves(summary)
    paths = _write(summary, search, differences, sweep_dir(root, sweep), sweep)
    notes = list(summary.notes if search is None else search.notes)
    for more in (differences, curves):
        notes += [] if more is None else more.notes
    return {
        "schema": 1,
        "warning": summary.warning or None,
        "sweep": sweep,
        "question": summary.sweep.question,
        "tier": summary.sweep.tier,
        "tier_status": read_card(summary.sweep.tier).status,
        "rows": _records(summary.frame()),
        "search": None if search is None else _records(search.frame()),
        "differences": None if differences is None else _records(differences.frame()),
        "crossings": None if curves is None else _records(curves.frame()),
        "notes": notes,
        "files": [str(path) for path in asdict(paths).values() if path is not None],
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    plain = frame.astype(object).where(frame.notna(), None)
    rows = plain.to_dict("records")
    return [{str(k): v.item() if isinstance(v, np.generic) else v for k, v in row.items()} for row in rows]


def _write(
    summary: Summary, search: SearchSummary | None, differences: Differences | None, out: Path, title: str
) -> ReportPaths:
    curves = read_curves(summary)
    if curves is not None:
        drawn: Figure | None = curve_figure(summary, curves)
    else:
        drawn = summary_figure(summary) if search is None else search_figure(search)
    paths = ReportPaths(
        long_csv=out / "long.csv",
        table_csv=out / "table.csv",
        table_md=out / "table.md",
        table_tex=out / "table.tex",
        table_html=out / "table.html",
        cost_csv=out / "cost.csv",
        cost_md=out / "cost.md",
        figure_png=None if drawn is None else out / "figure.png",
        figure_pdf=None if drawn is None else out / "figure.pdf",
        search_md=None if search is None else out / "search.md",
        search_csv=None if search is None else out / "search.csv",
        differences_csv=None if differences is None else out / "differences.csv",
        crossings_csv=None if curves is None else out / "crossings.csv",
    )
    texts = {
        paths.long_csv: csv(summary.long),
        paths.table_csv: csv(summary.frame()),
        paths.cost_csv: csv(summary.costs),
        paths.cost_md: cost_tables.markdown(summary, title),
        **_pages(summary, differences, curves, paths, title),
    }
    for file, table in (("differences.csv", differences), ("crossings.csv", curves)):
        if table is not None:
            texts[out / file] = csv(table.frame())
        else:  # an earlier report may have had a baseline, or another x axis
            (out / file).unlink(missing_ok=True)
    if search is not None:
        lines = [
            *warning_lines(summary.warning),
            f"# {title}: what the search found",
            "",
            *markdown_table(search_table.cells(search)),
            "",
        ]
        texts[out / "search.md"] = "\n".join([*lines, *(f"- {note}" for note in search.notes)]) + "\n"
        texts[out / "search.csv"] = csv(search.frame())
    for path, text in texts.items():
        write_atomic(path, text.encode())
    for kind in ("png", "pdf"):
        if drawn is not None:
            write_atomic(out / f"figure.{kind}", render(drawn, kind))
        else:
            (out / f"figure.{kind}").unlink(missing_ok=True)
    return paths


def _pages(
    summary: Summary, differences: Differences | None, curves: Curves | None, paths: ReportPaths, title: str
) -> dict[Path, str]:
    """The pages with the table; below it, if the sweep has them, the differences to a baseline and the crossings of curves."""
    picture = None if paths.figure_png is None else paths.figure_png.name
    markdown, latex, html = summary_table.markdown(summary, title), summary_table.latex(summary, title), ""
    if differences is not None:
        markdown += difference_table.markdown(differences)
        latex += difference_table.latex(differences)
        html = difference_table.html(differences)
    if curves is not None:
        markdown += crossing_table.markdown(curves)
        latex += crossing_table.latex(curves, summary.sweep.name)
        html += crossing_table.html(curves, summary.sweep.name)
    return {
        paths.table_md: markdown,
        paths.table_tex: latex,
        paths.table_html: summary_table.html_page(summary, title, picture, html),
    }


def _print_differences(differences: Differences, trials: Collection[str] | None, console: Console) -> None:
    console.print()
    heading: str | None = difference_table.title(differences)
    for columns in _column_groups(differences.summary, console.width, lambda c: difference_table.min_width(differences, c)):
        console.print(difference_table.terminal(differences, heading, console.width, columns, trials))
        heading = None
    _print_notes(differences.notes, console)


def _print_notes(notes: Sequence[str], console: Console) -> None:
    for note in notes:
        console.print(note, style="dim", highlight=False, markup=False)


def _column_groups(summary: Summary, width: int, min_width: Callable[[Sequence[Column]], int]) -> list[list[Column]]:
    """The columns as one group if all fit ``width``; else probes and other columns apart, each in as few groups as fit."""

    def fits(columns: Sequence[Column]) -> bool:
        return min_width(columns) <= width

    if fits(summary.columns):
        return [list(summary.columns)]
    groups: list[list[Column]] = []
    for probes in (True, False):
        group: list[Column] = []
        for column in summary.columns:
            if column.metric.startswith("acc_") is not probes:
                continue
            if group and not fits([*group, column]):
                groups.append(group)
                group = []
            group.append(column)
        groups += [group] if group else []
    return groups
