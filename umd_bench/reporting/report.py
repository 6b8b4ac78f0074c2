"""A sweep's report: its tables and its figure as files, and on the terminal. Writing it twice writes the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from umd_bench.reporting.frames.naming import MISSING
from umd_bench.reporting.pages import difference_tables, figures, tables
from umd_bench.reporting.pages.search_figure import search_figure
from umd_bench.reporting.statistics.arm_costs import arm_costs
from umd_bench.reporting.statistics.differences import Differences, differences
from umd_bench.reporting.statistics.searches import search_cells, search_terminal, summarize_search
from umd_bench.reporting.statistics.summary import Column, Summary, summarize
from umd_bench.store import sweep_dir
from umd_bench.store.files import write_atomic

WIDE = 120  # characters a line of what is written to a file or a pipe, or more where the table needs them


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report; the figures are None where there is nothing to draw yet, differences without a baseline."""

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


def write_report(summary: Summary, root: Path, *, out: Path | None = None, title: str | None = None) -> ReportPaths:
    """Write the report of a sweep below ``root`` into ``out``, the sweep's own folder when left out."""
    name = summary.sweep.name
    return _write(summary, out or sweep_dir(root, name), title or name)


def print_report(root: Path, sweep: str, console: Console, *, against: Mapping[str, Any] | None = None) -> None:
    """Write the report into the sweep's folder, print its tables and notes and say where the files are.

    ``against`` (axis -> value) names the arm to compare with instead of the one that the sweep's ``report`` does. Raises
    :class:`UserError` for an unknown sweep or arm, and where its ``report`` asks for a metric that is not there.
    """
    summary = summarize(root, sweep, against=against)
    paths = write_report(summary, root)
    found, compared = summarize_search(summary), differences(summary)
    if not console.is_terminal:  # a pipe or a log has no width of its own
        needed = WIDE if found is not None else tables.narrowest(summary)
        needed = max(needed, WIDE if compared is None else difference_tables.narrowest(compared, summary.columns))
        console = Console(file=console.file, width=max(console.width, WIDE, needed))
    title = summary.sweep.question or sweep
    if found is not None:  # its best; every trial stands in the files
        console.print(search_terminal(found, title))
    for columns in [] if found is not None else _side_by_side(summary, console.width, lambda c: tables.narrowest(summary, c)):
        console.print(tables.terminal(summary, title, console.width, columns))
        title = ""
    for note in summary.notes if found is None else found.notes:
        console.print(note, style="dim", highlight=False, markup=False)
    if compared is not None:
        best = None if found is None else {trial for row in found.best() for trial in row.suggestion.trials}
        _print_differences(compared, best, console)
    files = (paths.search_md, paths.table_md, paths.table_csv, paths.differences_csv, paths.table_html, paths.figure_png)
    shown = [path.name for path in (*files, paths.cost_md) if path]
    console.print(f"\n{paths.table_md.parent}: {', '.join(shown)}", highlight=False, markup=False, soft_wrap=True)


def report_json(root: Path, sweep: str, *, against: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The report for programs, after it was written as :func:`print_report` does, which says what is raised.

    ``rows`` are those of table.csv, an arm or a reference each, every number at full precision and null where there is none;
    ``search`` those of search.csv where the sweep is a search, ``differences`` those of differences.csv where there is a
    baseline; ``notes`` say what the numbers are; ``files`` are the report's.
    """
    summary = summarize(root, sweep, against=against)
    paths = write_report(summary, root)
    found, compared = summarize_search(summary), differences(summary)
    return {
        "schema": 1,
        "sweep": sweep,
        "question": summary.sweep.question,
        "tier": summary.sweep.tier,
        "rows": _records(summary.frame()),
        "search": None if found is None else _records(found.frame()),
        "differences": None if compared is None else _records(compared.frame()),
        "notes": [*(summary.notes if found is None else found.notes), *(() if compared is None else compared.notes)],
        "files": [str(path) for path in asdict(paths).values() if path is not None],
    }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    plain = frame.astype(object).where(frame.notna(), None)
    rows = plain.to_dict("records")
    return [{str(k): v.item() if isinstance(v, np.generic) else v for k, v in row.items()} for row in rows]


def cost_summary(costs: pd.DataFrame) -> pd.DataFrame:
    """What each stage of the sweep took, over its distinct keys, as text: a stage that trials share is counted once."""
    rows = []
    for stage, all_rows in costs.groupby("stage", sort=False):
        runs = all_rows.drop_duplicates("key")
        memory = runs["peak_memory_bytes"].max()
        rows.append(
            {
                "stage": stage,
                "runs": str(len(runs)),
                "total seconds": f"{runs['seconds'].sum():.1f}",
                "median seconds": f"{runs['seconds'].median():.1f}",
                "median images/s": _number(runs["images_per_second"].median()),
                "peak memory MiB": _number(None if memory is pd.NA else memory / 2**20),
                "attempts": str(runs["attempts"].sum()),
                "device": " or ".join(sorted(runs["device_name"].dropna().unique())),
                "host": " or ".join(sorted(runs["host"].dropna().unique())),
            }
        )
    names = (
        "stage",
        "runs",
        "total seconds",
        "median seconds",
        "median images/s",
        "peak memory MiB",
        "attempts",
        "device",
        "host",
    )
    return pd.DataFrame(rows, columns=list(names), dtype="string")


def _write(summary: Summary, out: Path, title: str) -> ReportPaths:
    found = summarize_search(summary)
    drawn = figures.figure(summary) if found is None else search_figure(found)
    compared = differences(summary)
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
        search_md=None if found is None else out / "search.md",
        search_csv=None if found is None else out / "search.csv",
        differences_csv=None if compared is None else out / "differences.csv",
    )
    cost_lines = [f"# What {title} cost", "", *tables.markdown_rows(cost_summary(summary.costs))]
    by_arm = arm_costs(summary, summary.costs)
    if len(by_arm):
        cost_lines += ["", "## Pre-training, arm by arm", "", *tables.markdown_rows(by_arm)]
    texts = {
        paths.long_csv: tables.csv(summary.long),
        paths.table_csv: tables.csv(summary.frame()),
        paths.cost_csv: tables.csv(summary.costs),
        paths.cost_md: "\n".join(cost_lines) + "\n",
        **_pages(summary, compared, paths, title),
    }
    if compared is not None:
        texts[out / "differences.csv"] = tables.csv(compared.frame())
    else:  # of an earlier report, against an arm that this one names no more
        (out / "differences.csv").unlink(missing_ok=True)
    if found is not None:
        lines = [f"# {title}: what the search found", "", *tables.markdown_rows(search_cells(found)), ""]
        texts[out / "search.md"] = "\n".join([*lines, *(f"- {note}" for note in found.notes)]) + "\n"
        texts[out / "search.csv"] = tables.csv(found.frame())
    for path, text in texts.items():
        write_atomic(path, text.encode())
    for name in ("png", "pdf"):
        if drawn is not None:
            write_atomic(out / f"figure.{name}", figures.render(drawn, name))
        else:
            (out / f"figure.{name}").unlink(missing_ok=True)
    return paths


def _pages(summary: Summary, compared: Differences | None, paths: ReportPaths, title: str) -> dict[Path, str]:
    """The pages with the table, and below it the differences to the baseline where there is one."""
    picture = None if paths.figure_png is None else paths.figure_png.name
    more = "" if compared is None else difference_tables.html(compared)
    return {
        paths.table_md: tables.markdown(summary, title) + ("" if compared is None else difference_tables.markdown(compared)),
        paths.table_tex: tables.latex(summary, title) + ("" if compared is None else difference_tables.latex(compared)),
        paths.table_html: tables.page(summary, title, picture, more),
    }


def _print_differences(compared: Differences, trials: Collection[str] | None, console: Console) -> None:
    console.print()
    heading: str | None = difference_tables.title(compared)
    for columns in _side_by_side(compared.summary, console.width, lambda c: difference_tables.narrowest(compared, c)):
        console.print(difference_tables.terminal(compared, heading, console.width, columns, trials))
        heading = None
    for note in compared.notes:
        console.print(note, style="dim", highlight=False, markup=False)


def _side_by_side(summary: Summary, width: int, narrowest: Callable[[Sequence[Column]], int]) -> list[list[Column]]:
    """The columns in groups that a terminal has room for, one below the other: all, or probes and the rest apart, or fewer."""

    def fits(columns: Sequence[Column]) -> bool:
        return narrowest(columns) <= width

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


def _number(value: float | None) -> str:
    return MISSING if value is None or pd.isna(value) else f"{value:,.0f}"
