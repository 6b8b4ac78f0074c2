"""A heat map of metrics over two axes of a sweep: each cell shows the mean over seeds as a number and as a colour."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from umd_bench.config.errors import UserError
from umd_bench.reporting.frames.sweep_frames import axis_columns
from umd_bench.reporting.notation.formatting import format_mean, format_value
from umd_bench.reporting.pages.figure_style import STYLE
from umd_bench.reporting.statistics.summary import Summary

_DARK = 0.5  # on the colour scale from 0 (light) to 1: text on darker cells is white


def heatmap(summary: Summary, y: str) -> Figure | None:
    """One panel per metric, with ``summary.x`` to the right and the axis ``y`` (a path) upwards; None if there is no result.

    If the sweep has further axes, a cell is the mean over them too, and the title says so. Raises :class:`UserError` if ``y``
    is not another axis of the sweep.
    """
    paths = axis_columns(list(summary.sweep.axes))
    if y not in paths or paths[y] == summary.x:
        raise UserError(
            f"sweep {summary.sweep.name}: a map's y = {y!r} is not another axis: expected one of {', '.join(paths)}"
        )
    shown = [column for column in summary.columns if any(column in row.estimates for row in summary.arms)]
    if not shown:
        return None
    x_values, y_values = (sorted({row.axes[axis] for row in summary.arms}) for axis in (summary.x, paths[y]))
    others = [axis for axis in summary.axes if axis not in (summary.x, paths[y])]
    with mpl.rc_context({**STYLE, "axes.grid": False, "axes.spines.left": False, "axes.spines.bottom": False}):
        drawn = Figure(figsize=(3.5 * len(shown), 1.0 + 0.36 * len(y_values)), layout="constrained")
        FigureCanvasAgg(drawn)
        for axes, column in zip(drawn.subplots(1, len(shown), squeeze=False)[0], shown, strict=True):
            cells = np.full((len(y_values), len(x_values)), np.nan)
            for i, j in np.ndindex(cells.shape):
                at = {summary.x: x_values[j], paths[y]: y_values[i]}
                arms = [row for row in summary.arms if all(row.axes[axis] == value for axis, value in at.items())]
                means = [row.estimates[column].mean for row in arms if column in row.estimates]
                cells[i, j] = np.mean(means) if means else np.nan
            image = axes.imshow(cells, origin="lower", aspect="auto", cmap="Blues")
            for (i, j), value in np.ndenumerate(cells):
                written = "" if np.isnan(value) else format_mean(value, None, percent=column.percent)
                colour = "white" if image.norm(value) > _DARK else "black"
                axes.text(j, i, written, ha="center", va="center", color=colour, fontsize=7)
            axes.set_xticks(range(len(x_values)), [format_value(value) for value in x_values])
            axes.set_yticks(range(len(y_values)), [format_value(value) for value in y_values])
            axes.tick_params(length=0)
            axes.set_xlabel(summary.x)
            axes.set_ylabel(paths[y])
            axes.set_title(column.title + (f" (mean over {', '.join(others)})" if others else ""))
    return drawn
