"""A search's figure: the Pareto front of its first two objectives, and the first objective against each hyperparameter.

A search with one objective shows its score against the suggestion's number instead of a front. Points on the front are filled,
and in the first panel numbered; the others are faint. Pruned suggestions have no score, so they are marked on the lower edge.
The legend says at which share of the training they were pruned.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from umd_bench.config.sweep.pruning import percent
from umd_bench.reporting.notation.formatting import format_value
from umd_bench.reporting.notation.metrics import header, is_percent
from umd_bench.reporting.pages.figure_style import GREY, MARKERS, PALETTE, STYLE
from umd_bench.reporting.statistics.search_summary import Ranked, SearchSummary
from umd_bench.store import SuggestionRecord

MAX_PANELS = 3  # of hyperparameters
MAX_COLOURS = len(PALETTE)
PRUNED_MARKERS = ("x", "+", "1", "2", "3", "4")  # by rung


def search_figure(search: SearchSummary) -> Figure | None:
    """The figure, 3.1 inches wide per panel; None if no suggestion has a score yet."""
    if not search.ranked:
        return None
    space = list(search.record.config.space)[:MAX_PANELS]
    with mpl.rc_context({**STYLE, "axes.grid.axis": "both"}):
        drawn = Figure(figsize=(3.1 * (1 + len(space)), 3.0), layout="constrained")
        FigureCanvasAgg(drawn)
        panels = drawn.subplots(1, 1 + len(space), squeeze=False)[0]
        arms = _arms(search)
        if len(search.objectives) > 1:
            _front_panel(panels[0], search, arms)
        else:
            _history_panel(panels[0], search, arms)
        for axes, path in zip(panels[1:], space, strict=True):
            _dimension_panel(axes, search, arms, path)
        if len(search.objectives) == 1:
            _pruned(panels[0], search, lambda suggestion: suggestion.number)
        for axes, path in zip(panels[1:], space, strict=True):
            _pruned(axes, search, functools.partial(_place, search, path))
        if len(arms) > 1:
            panels[0].legend(loc="best")
        _legend_of_pruned(panels[-1])
    return drawn


def _pruned(axes: Axes, search: SearchSummary, x: Callable[[SuggestionRecord], float | None]) -> None:
    """A mark on the lower edge for each pruned suggestion; each rung has a mark of its own shape."""
    by_rung: dict[float, list[float]] = {}
    for suggestion in search.record.suggestions:
        share = suggestion.pruned_at if suggestion.repeats is None else None
        place = x(suggestion) if share is not None else None
        if share is not None and place is not None:
            by_rung.setdefault(share, []).append(place)
    for place, (share, at) in enumerate(sorted(by_rung.items())):
        axes.update_datalim([(each, 0.0) for each in at], updatey=False)
        axes.scatter(
            at,
            [0.03] * len(at),
            s=16,
            marker=PRUNED_MARKERS[place % len(PRUNED_MARKERS)],
            color=GREY,
            linewidth=0.8,
            transform=axes.get_xaxis_transform(),
            label=f"pruned at {percent(share)}%",
        )
    axes.autoscale_view(scaley=False)


def _legend_of_pruned(axes: Axes) -> None:
    named = [(handle, label) for handle, label in zip(*axes.get_legend_handles_labels(), strict=True) if "pruned at" in label]
    if named:
        axes.legend([handle for handle, _ in named], [label for _, label in named], loc="best")


def _place(search: SearchSummary, path: str, suggestion: SuggestionRecord) -> float | None:
    """A suggestion's position on a hyperparameter's axis; None if its value is not a finite number."""
    value = suggestion.values[path]
    choices = [format_value(choice) for choice in search.record.config.space[path].choices or ()]
    if choices:
        return float(choices.index(format_value(value)))
    return float(value) if _are_finite([value]) else None


def _arms(search: SearchSummary) -> dict[str, list[Ranked]]:
    """Rows by arm, as text of its axis values; colours repeat after the last one of the palette."""
    arms: dict[str, list[Ranked]] = {}
    for row in search.ranked:
        arms.setdefault(", ".join(map(format_value, row.suggestion.arm.values())), []).append(row)
    return arms


def _front_panel(axes: Axes, search: SearchSummary, arms: dict[str, list[Ranked]]) -> None:
    y, x = search.objectives[:2]
    for place, (arm, rows) in enumerate(arms.items()):
        _points(axes, rows, [_value(row, x) for row in rows], [_value(row, y) for row in rows], place, arm)
        front = sorted((_value(row, x), _value(row, y)) for row in rows if row.front)
        colour = PALETTE[place % MAX_COLOURS]
        axes.plot([p[0] for p in front], [p[1] for p in front], color=colour, linewidth=0.9, alpha=0.6, zorder=2)
    axes.set_title("Pareto front")
    axes.set_xlabel(_label(x))
    axes.set_ylabel(_label(y))


def _history_panel(axes: Axes, search: SearchSummary, arms: dict[str, list[Ranked]]) -> None:
    objective = search.objectives[0]
    better = max if search.record.config.objectives[objective] == "maximise" else min
    for place, (arm, rows) in enumerate(arms.items()):
        rows = sorted(rows, key=lambda row: row.suggestion.number)
        numbers, values = [row.suggestion.number for row in rows], [_value(row, objective) for row in rows]
        _points(axes, rows, numbers, values, place, arm)
        best = [better(values[: i + 1]) for i in range(len(values))]
        axes.step(numbers, best, where="post", color=PALETTE[place % MAX_COLOURS], linewidth=0.9, alpha=0.6, zorder=2)
    axes.set_title("Best so far")
    axes.set_xlabel("suggestion")
    axes.set_ylabel(_label(objective))


def _dimension_panel(axes: Axes, search: SearchSummary, arms: dict[str, list[Ranked]], path: str) -> None:
    """The first objective against one hyperparameter; choices are spaced evenly in their order."""
    objective, dimension = search.objectives[0], search.record.config.space[path]
    choices = [format_value(choice) for choice in dimension.choices or ()]
    for place, (arm, rows) in enumerate(arms.items()):
        values = [row.suggestion.values[path] for row in rows]
        x = values if not choices and _are_finite(values) else [choices.index(format_value(value)) for value in values]
        _points(axes, rows, x, [_value(row, objective) for row in rows], place, arm, numbered=False)
    if choices:
        axes.set_xticks(range(len(choices)), choices, rotation=20 if sum(map(len, choices)) > 30 else 0)
        axes.set_xlim(-0.5, len(choices) - 0.5)
    elif dimension.log:
        axes.set_xscale("log")
    axes.set_title(search.columns[path])
    axes.set_ylabel(_label(objective))


def _points(
    axes: Axes,
    rows: Sequence[Ranked],
    x: Sequence[float],
    y: Sequence[float],
    place: int,
    arm: str,
    *,
    numbered: bool = True,
) -> None:
    colour, marker = PALETTE[place % MAX_COLOURS], MARKERS[place % len(MARKERS)]
    for front in (False, True):
        chosen = [i for i, row in enumerate(rows) if row.front is front]
        axes.scatter(
            [x[i] for i in chosen],
            [y[i] for i in chosen],
            s=26 if front else 14,
            marker=marker,
            facecolor=colour if front else "none",
            edgecolor=colour if front else GREY,
            alpha=1.0 if front else 0.55,
            linewidth=0.8,
            zorder=3 if front else 1,
            label=arm if front else None,
        )
        for i in chosen if front and numbered else ():
            axes.annotate(
                f"{rows[i].suggestion.number}",
                (x[i], y[i]),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=6,
                color=colour,
            )


def _value(row: Ranked, objective: str) -> float:
    return row.estimates[objective].mean * (100 if is_percent(objective.partition(".")[2]) else 1)


def _label(objective: str) -> str:
    stage, _, metric = objective.partition(".")
    return header(stage, metric)


def _are_finite(values: Sequence[Any]) -> bool:
    """Whether all values are finite numbers, which have a position on an axis."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values)
