"""A sweep's figure: probe accuracy and Fréchet distance in two panels against the swept axis, legible at column width.

It shows means with 95% intervals, and every seed as a faint dot. The comparison rows are grey: lines for raw pixels and real
images, marks at each arm for untrained weights and for weights trained with labels. If the x values are numbers, they are drawn
to scale (logarithmic if they span a wide range, as learning rates do) and joined by lines; names (a method, a schedule) are
spaced evenly and not joined.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.path import Path

from umd_bench.reporting.frames.sweep_frames import COMPARISON_ROWS, SUPERVISED, UNTRAINED
from umd_bench.reporting.notation.formatting import format_value
from umd_bench.reporting.notation.metrics import family, is_extrapolated
from umd_bench.reporting.pages.figure_style import GREY, MARKERS, PALETTE, STYLE
from umd_bench.reporting.statistics.summary import Column, Row, Summary

# Line styles of one hue, from a stage's last accuracy (of few-shot probes: the largest number of shots) to its first.
TONES: tuple[Any, ...] = ("-", (0, (4, 2)), (0, (1, 1.5)))
# Short horizontal marks, in the order of TONES: whole, in two pieces, in three.
BARS: tuple[Any, ...] = tuple(
    Path([(x, 0.0) for x in ends], [Path.MOVETO, Path.LINETO] * (len(ends) // 2))
    for ends in ((-1.0, 1.0), (-1.0, -0.3, 0.3, 1.0), (-1.0, -0.7, -0.15, 0.15, 0.7, 1.0))
)
# The comparison rows that are marks at each arm, never lines: the marks by tone, and their size.
ARM_MARKS: dict[str, tuple[tuple[Any, ...], int]] = {
    COMPARISON_ROWS[UNTRAINED]: (BARS, 11),
    COMPARISON_ROWS[SUPERVISED]: (("x", "+", "1"), 6),
}
MAX_LINES = 6
LEGEND_CHARACTERS = 72  # per line of a legend, at a panel's width
WIDE_RANGE = 50  # the x axis is logarithmic if the largest value is this many times the smallest
ROW_CHARACTERS = 36  # labels on the x axis are slanted if they have more characters than this in all


@dataclass(frozen=True)
class Line:
    """One curve: a column, for arms that differ along x alone. ``hue`` (colour) and ``tone`` (line) count from 0."""

    column: Column
    arms: tuple[Row, ...]
    label: str
    hue: int
    tone: int


def summary_figure(summary: Summary, *, title: str | None = None) -> Figure | None:
    """The figure of a summary, 3.7 inches wide per panel; None if it has neither probe accuracies nor distances."""
    panels = [
        ("Probe", "accuracy, % (higher is better)", _lines(summary, "acc_")),
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


def _lines(summary: Summary, *prefixes: str) -> list[Line]:
    """The curves of a panel: those of every column, if they are at most ``MAX_LINES``.

    Otherwise each stage keeps one column: its last accuracy (the linear probe, else the largest k-NN, else the largest number
    of shots), or its first distance. If the curves are still too many, only the first of these columns is kept.
    """
    columns = [column for column in summary.columns if column.metric.startswith(prefixes) and family(column.metric)]
    columns = [column for column in columns if not is_extrapolated(column.metric)]
    others = [axis for axis in summary.axes if axis != summary.x]
    series: dict[tuple[str, ...], list[Row]] = {}
    for row in summary.arms:
        series.setdefault(tuple(format_value(row.axes[axis]) for axis in others), []).append(row)
    if len(columns) * len(series) > MAX_LINES:
        ordered = columns if "acc_" in prefixes else columns[::-1]  # a dict keeps the last of each stage
        kept = {column.stage: column for column in ordered}.values()
        columns = [column for column in columns if column in kept]
    if len(columns) * len(series) > MAX_LINES:
        columns = columns[:1]
    stages = list(dict.fromkeys(column.stage for column in columns))
    lines = []
    for index, (key, arms) in enumerate(series.items()):
        place = ", ".join(f"{axis} {value}" for axis, value in zip(others, key, strict=True))
        for column in columns:
            if any(column in row.estimates for row in arms):
                shown = column.title.removesuffix(" %")
                tone = [other for other in columns if other.stage == column.stage][::-1].index(column)
                hue, tone = (index, columns.index(column)) if len(series) > 1 else (stages.index(column.stage), tone)
                lines.append(Line(column, tuple(arms), f"{shown}, {place}" if place else shown, hue, tone))
    return lines


def _panel(axes: Axes, summary: Summary, lines: Sequence[Line]) -> None:
    values = list(dict.fromkeys(row.axes[summary.x] for row in summary.arms))
    to_scale = _are_numbers(values)
    logarithmic = to_scale and min(values) > 0 and max(values) >= WIDE_RANGE * min(values)
    places = map(math.log10 if logarithmic else float, values) if to_scale else range(len(values))
    at: dict[Any, float] = dict(zip(values, places, strict=True))
    apart = (max(at.values()) - min(at.values()) or 1.0) / 100 if to_scale else min(0.5 / len(lines), 0.2)
    x_of = []
    for place, line in enumerate(lines):
        shift = (place - (len(lines) - 1) / 2) * apart
        x_of.append([at[row.axes[summary.x]] + shift for row in line.arms])
        _line(axes, line, x_of[-1], apart, joined=to_scale)
    _comparison_rows(axes, summary, lines, x_of)
    shown = [format_value(value) for value in values]
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
    """0 if the labels of x fit next to each other, else the length of the longest; slanted labels take so much height."""
    values = dict.fromkeys(row.axes[summary.x] for row in summary.arms)
    shown = [format_value(value) for value in values]
    return 0 if _are_numbers(values) or sum(map(len, shown)) <= ROW_CHARACTERS else max(map(len, shown))


def _are_numbers(values: Iterable[object]) -> bool:
    return all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def _legend_width(names: Sequence[str], ncols: int) -> int:
    """The characters per line of a legend with ``names`` in ``ncols`` columns, with their handles."""
    rows = -(-len(names) // ncols)
    return sum(5 + max(map(len, names[start : start + rows])) for start in range(0, len(names), rows))


def _line(axes: Axes, line: Line, x: Sequence[float], apart: float, *, joined: bool) -> None:
    colour = PALETTE[line.hue % len(PALETTE)]
    scale = 100 if line.column.percent else 1
    points = [(at, row.estimates[line.column]) for at, row in zip(x, line.arms, strict=True) if line.column in row.estimates]
    for at, estimate in points:
        if estimate.n > 1:
            dots = [at + 0.35 * apart] * estimate.n
            axes.plot(dots, [v * scale for v in estimate.values], "o", color=colour, alpha=0.4, ms=2.4, mew=0, zorder=2)
    axes.errorbar(
        [at for at, _ in points],
        [estimate.mean * scale for _, estimate in points],
        yerr=[(estimate.half or 0.0) * scale for _, estimate in points],
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


def _comparison_rows(axes: Axes, summary: Summary, lines: Sequence[Line], x_of: Sequence[Sequence[float]]) -> None:
    """A grey line per distinct value of the comparison rows, in the line style of the first curve that the value belongs to.

    A value that depends on the arm's architecture, or that belongs to some arms only, is a grey mark at the point of each arm
    instead. ``x_of`` has each curve's x positions.
    """
    drawn: set[float] = set()
    labels: set[str] = set()
    for row in summary.comparison_rows:
        for line, x in zip(lines, x_of, strict=True):
            estimate = row.estimates.get(line.column)
            if estimate is None:
                continue
            value = estimate.mean * (100 if line.column.percent else 1)
            kind = row.name.partition(" (")[0]
            label = f"{kind} {line.column.title.split(' ')[-2]}" if line.column.percent else kind
            arms = {trial for arm in summary.arms if line.column in arm.estimates for trial in arm.trials}
            if kind not in ARM_MARKS and arms <= {*row.trials}:
                if estimate.mean not in drawn:
                    style = TONES[line.tone % len(TONES)]
                    axes.axhline(value, color=GREY, linewidth=1.0, linestyle=style, zorder=1, label=label)
                drawn.add(estimate.mean)
                continue
            own = [at for at, arm in zip(x, line.arms, strict=True) if {*arm.trials} <= {*row.trials}]
            if own:
                marks, size = ARM_MARKS.get(kind, (BARS, 11))
                mark = {
                    "marker": marks[line.tone % len(marks)],
                    "markersize": size,
                    "markeredgewidth": 1.3,
                    "fillstyle": "none",
                }
                shown = "_nolegend_" if label in labels else label
                axes.plot(own, [value] * len(own), color=GREY, linestyle="none", zorder=1, label=shown, **mark)
                labels.add(label)
