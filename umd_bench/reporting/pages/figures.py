"""A sweep's figure: probe accuracy and Fréchet distance side by side against the swept axis, legible at column width.

Means with 95% intervals, every seed as a faint dot, and in grey what needs no training (raw pixels, real against real images).
Numbers on the axis are drawn to scale (a logarithmic one where they are far apart, as rates are) and joined; names (a method, a
schedule) stand apart. The files hold no date and no program's name, so the same results give the same bytes.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from umd_bench.reporting.frames.naming import axis_value, family, is_extrapolated
from umd_bench.reporting.statistics.summary import Column, Row, Summary

# Okabe and Ito's palette, told apart by colour-blind readers too; yellow left out, as it is faint on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#6b6b6b"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#444444",
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "legend.fontsize": 6.8,
    "legend.handlelength": 1.8,
    "legend.handletextpad": 0.5,
    "legend.columnspacing": 1.0,
    "pdf.fonttype": 42,
    "svg.hashsalt": "umd-bench",
    "figure.dpi": 200,
    "savefig.dpi": 200,
}
_METADATA: dict[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Producer": None, "Creator": None},
    "svg": {"Date": None, "Creator": None},
}
# Lines of one hue: the most shots first.
TONES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)))
MAX_LINES = 6
LEGEND_CHARACTERS = 72  # what a panel's width holds
WIDE_RANGE = 50  # how many times the smallest value of x the largest is where its axis is logarithmic
ROW_CHARACTERS = 36  # of all labels of x side by side


@dataclass(frozen=True)
class Line:
    """One curve of a panel: a column, of the arms that agree in every axis but x. ``hue`` and ``tone`` count from 0."""

    column: Column
    arms: tuple[Row, ...]
    label: str
    hue: int
    tone: int


def figure(summary: Summary, *, title: str | None = None) -> Figure | None:
    """The figure of a summary, 3.7 inches wide a panel; None where it has neither probe accuracies nor distances to show."""
    panels = [
        ("Probe", "test accuracy, % (higher is better)", _lines(summary, "acc_")),
        ("Samples", "Fréchet distance (lower is better)", _lines(summary, "fd_", "fid")),
    ]
    panels = [panel for panel in panels if panel[2]]
    if not panels:
        return None
    with mpl.rc_context(STYLE):
        extra = max(len(lines) for *_, lines in panels) - 2
        drawn = Figure(figsize=(3.7 * len(panels), 3.0 + 0.12 * max(extra, 0) + 0.02 * _slanted(summary)), layout="constrained")
        FigureCanvasAgg(drawn)
        for axes, (name, unit, lines) in zip(drawn.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _panel(axes, summary, lines)
            axes.set_title(name)
            axes.set_ylabel(unit)
        if title:
            drawn.suptitle(title, x=0.01, ha="left", fontsize=9)
    return drawn


def render(drawn: Figure, kind: str) -> bytes:
    """The figure as ``png``, ``pdf`` or ``svg``, without dates."""
    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        drawn.savefig(buffer, format=kind, metadata=_METADATA[kind], bbox_inches="tight", pad_inches=0.05)
    return buffer.getvalue()


def _lines(summary: Summary, *prefixes: str) -> list[Line]:
    """What a panel shows: every column when there is one series, else each series' first column per stage."""
    columns = [column for column in summary.columns if column.metric.startswith(prefixes) and family(column.metric)]
    columns = [column for column in columns if not is_extrapolated(column.metric)]
    others = [axis for axis in summary.axes if axis != summary.x]
    series: dict[tuple[str, ...], list[Row]] = {}
    for row in summary.arms:
        series.setdefault(tuple(axis_value(row.axes[axis]) for axis in others), []).append(row)
    if len(columns) * len(series) > MAX_LINES:
        columns = list({column.stage: column for column in reversed(columns)}.values())[::-1]
    if len(columns) * len(series) > MAX_LINES:
        columns = columns[:1]
    stages = list(dict.fromkeys(column.stage for column in columns))
    lines = []
    for number, (key, arms) in enumerate(series.items()):
        place = ", ".join(f"{axis} {value}" for axis, value in zip(others, key, strict=True))
        for column in columns:
            if any(column in row.estimates for row in arms):
                shown = column.title.removesuffix(" %")
                tone = [other for other in columns if other.stage == column.stage][::-1].index(column)
                hue, tone = (number, columns.index(column)) if len(series) > 1 else (stages.index(column.stage), tone)
                lines.append(Line(column, tuple(arms), f"{shown}, {place}" if place else shown, hue, tone))
    return lines


def _panel(axes: Axes, summary: Summary, lines: Sequence[Line]) -> None:
    values = list(dict.fromkeys(row.axes[summary.x] for row in summary.arms))
    to_scale = _to_scale(values)
    logarithmic = to_scale and min(values) > 0 and max(values) >= WIDE_RANGE * min(values)
    places = map(math.log10 if logarithmic else float, values) if to_scale else range(len(values))
    at: dict[Any, float] = dict(zip(values, places, strict=True))
    apart = (max(at.values()) - min(at.values()) or 1.0) / 100 if to_scale else min(0.5 / len(lines), 0.2)
    for place, line in enumerate(lines):
        shift = (place - (len(lines) - 1) / 2) * apart
        _line(axes, line, [at[row.axes[summary.x]] + shift for row in line.arms], apart, joined=to_scale)
    _references(axes, summary, lines)
    shown = [axis_value(value) for value in values]
    slanted = _slanted(summary)
    axes.set_xticks([at[value] for value in values], shown, rotation=20 if slanted else 0, ha="right" if slanted else "center")
    if not to_scale:
        axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set_xlabel(f"{summary.x} (logarithmic)" if logarithmic else summary.x)
    axes.margins(y=0.1)
    if lines[0].column.percent:
        axes.set_ylim(top=min(axes.get_ylim()[1], 100.5))
    else:
        axes.set_ylim(bottom=0)
    drawn = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    names = [line.label for line in lines] + [name for name in drawn if name not in {line.label for line in lines}]
    ncols = next((n for n in (3, 2) if _legend_width(names, n) <= LEGEND_CHARACTERS), 1)
    axes.legend(
        [drawn[n] for n in names], names, loc="upper center", bbox_to_anchor=(0.46, -0.2 - 0.008 * slanted), ncols=ncols
    )


def _slanted(summary: Summary) -> int:
    """Characters of the longest label of x where they are too many to stand side by side and so reach down; else 0."""
    values = dict.fromkeys(row.axes[summary.x] for row in summary.arms)
    shown = [axis_value(value) for value in values]
    return 0 if _to_scale(values) or sum(map(len, shown)) <= ROW_CHARACTERS else max(map(len, shown))


def _to_scale(values: Iterable[object]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _legend_width(names: Sequence[str], ncols: int) -> int:
    """Characters that ``ncols`` columns of ``names`` take, with their handles."""
    rows = -(-len(names) // ncols)
    return sum(5 + max(map(len, names[start : start + rows])) for start in range(0, len(names), rows))


def _line(axes: Axes, line: Line, x: Sequence[float], apart: float, *, joined: bool) -> None:
    colour = PALETTE[line.hue % len(PALETTE)]
    scale = 100 if line.column.percent else 1
    points = [(at, row.estimates[line.column]) for at, row in zip(x, line.arms, strict=True) if line.column in row.estimates]
    for at, found in points:
        if found.n > 1:
            beside = [at + 0.35 * apart] * found.n
            axes.plot(beside, [v * scale for v in found.values], "o", color=colour, alpha=0.4, ms=2.4, mew=0, zorder=2)
    axes.errorbar(
        [at for at, _ in points],
        [found.mean * scale for _, found in points],
        yerr=[(found.half or 0.0) * scale for _, found in points],
        color=colour,
        marker=MARKERS[line.hue % len(MARKERS)],
        markersize=4.4,
        markerfacecolor="white" if line.tone % 2 else colour,
        markeredgewidth=1.1,
        linewidth=1.4 if joined else 0,
        linestyle=TONES[line.tone % len(TONES)] if joined else "none",
        elinewidth=1.0,
        capsize=2.0,
        label=line.label,
        zorder=3,
    )


def _references(axes: Axes, summary: Summary, lines: Sequence[Line]) -> None:
    """A grey line per distinct reference value, with the tone of the first curve it belongs to."""
    drawn: set[float] = set()
    for row in summary.references:
        for line in lines:
            found = row.estimates.get(line.column)
            if found is None or found.mean in drawn:
                continue
            drawn.add(found.mean)
            label = f"{row.name} {line.column.title.split(' ')[-2]}" if line.column.percent else row.name
            value = found.mean * (100 if line.column.percent else 1)
            axes.axhline(value, color=GREY, linewidth=1.0, linestyle=TONES[line.tone % len(TONES)], zorder=1, label=label)
