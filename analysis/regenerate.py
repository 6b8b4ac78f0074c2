"""Make every table and figure from a results folder, and an index that names the command for each missing one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from analysis import published
from analysis.heatmap import heatmap
from analysis.items import ITEMS, Item
from umd_bench.config.errors import UserError
from umd_bench.reporting.pages.figure_style import render
from umd_bench.reporting.pages.table_formats import warning_lines
from umd_bench.reporting.report import write_report
from umd_bench.reporting.statistics.summary import summarize
from umd_bench.store import list_sweeps
from umd_bench.store.files import write_atomic


@dataclass(frozen=True)
class Outcome:
    """One sweep of the index: ``folder`` holds its files, or ``reason`` says in one sentence why there are none.

    ``warning`` is the warning of the sweep's tier, empty if it has none.
    """

    name: str
    title: str
    source: str
    folder: Path | None = None
    reason: str = ""
    warning: str = ""


def regenerate(results: Path, out: Path) -> Iterator[Outcome]:
    """Write a folder of tables and figures for each sweep below ``out``, the paper's items first, then the index ``README.md``.

    Yields one outcome per sweep. A sweep that cannot be read or shown does not stop the others.
    """
    recorded = list_sweeps(results)
    outcomes = []
    for item in ITEMS:
        if item.sweep in recorded:
            outcomes.append(_make(results, out, item.sweep, item))
        else:
            reason = f"{results} holds no results of it; `{item.command}` makes them"
            outcomes.append(Outcome(item.sweep, item.title, item.source, reason=reason))
        yield outcomes[-1]
    for name in recorded:
        if name not in {item.sweep for item in ITEMS}:
            outcomes.append(_make(results, out, name, None))
            yield outcomes[-1]
    if any(outcome.folder for outcome in outcomes):
        write_atomic(out / "README.md", _index(outcomes).encode())


def _make(results: Path, out: Path, name: str, item: Item | None) -> Outcome:
    title = item.title if item else name
    source = item.source if item else "a sweep of this results folder, not an item of the paper"
    try:
        summary = summarize(results, name, x=item.x if item else None, metrics=item.metrics if item else ())
        if not summary.long["value"].notna().any():
            reason = "none of its stages has a result yet; running the sweep again goes on with it"
            return Outcome(name, title, source, reason=reason)
        write_report(summary, results, out=out / name, title=title)
        drawn = heatmap(summary, item.map_y) if item and item.map_y else None
        if drawn is not None:
            for kind in ("png", "pdf"):
                write_atomic(out / name / f"map.{kind}", render(drawn, kind))
        if item and item.published:
            page = published.comparison_page(summary, [published.load(table) for table in item.published])
            write_atomic(out / name / "published.md", page.encode())
    except UserError as error:
        return Outcome(name, title, source, reason=str(error))
    return Outcome(name, title, source, folder=out / name, warning=summary.warning)


def _index(outcomes: list[Outcome]) -> str:
    lines = ["# Tables and figures", "", "Made by `python -m analysis` from run directories alone.", ""]
    for outcome in outcomes:
        lines += [f"## {outcome.title}", "", f"Source: {outcome.source}.", ""]
        if outcome.folder is None:
            lines += [f"Not made: {outcome.reason}.", ""]
            continue
        lines += warning_lines(outcome.warning)
        files = sorted(path.name for path in outcome.folder.iterdir())
        pictures = [file for file in ("figure.png", "map.png") if file in files]
        for picture in pictures:
            lines += [f"![{outcome.title}]({outcome.name}/{picture})", ""]
        lines += [", ".join(f"[{file}]({outcome.name}/{file})" for file in files), ""]
    return "\n".join(lines)
