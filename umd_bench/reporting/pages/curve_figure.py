"""The figure of a sweep over snapshots: one panel for each stage, a line for each arm against the images seen.

It shows means with 95% intervals. The untrained weights are a hollow mark at 0 images, left of the logarithmic axis. Each
crossing of two lines is marked. Its interval is drawn if the interval has both bounds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from umd_bench.reporting.frames.sweep_frames import COMPARISON_ROWS, OF_DATA
from umd_bench.reporting.pages.figure_style import GREY, MARKERS, PALETTE, STYLE
from umd_bench.reporting.statistics.curves import Crossing, Curve, Curves, Panel
from umd_bench.reporting.statistics.summary import Estimate, Summary

LEAST_GAP = 0.06  # smallest gap between two labels, as a share of the axis
SURE, UNSURE = "order changes: sure on both sides", "order changes: not sure"


def curve_figure(summary: Summary, curves: Curves) -> Figure:
    """The figure of ``curves``, 3.7 inches wide per panel. Panels of accuracies share their scale."""
    with mpl.rc_context(STYLE):
        drawn = Figure(figsize=(3.7 * len(curves.panels), 3.3), layout="constrained")
        FigureCanvasAgg(drawn)
        all_axes = drawn.subplots(1, len(curves.panels), squeeze=False)[0]
        for axes, panel in zip(all_axes, curves.panels, strict=True):
            _panel(axes, panel)
            for crossing in (one for one in curves.crossings if one.column == panel.column):
                _crossing(axes, crossing)
            _comparison_rows(axes, summary, panel)
            axes.set_title(panel.column.title.removesuffix(" %"))
            axes.set_ylabel(_unit(panel))
            axes.set_xlabel("images seen (logarithmic)")
            axes.margins(y=0.1)
        _share_scale([axes for axes, panel in zip(all_axes, curves.panels, strict=True) if panel.column.percent])
        handles = {label: handle for axes in all_axes for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        arms = [curve.name for panel in curves.panels for curve in panel.curves if curve.name]
        labels = list(dict.fromkeys([*arms, *handles]))
        columns = 2 + len(curves.panels)
        drawn.legend([handles[name] for name in labels], labels, loc="outside lower center", ncols=min(len(labels), columns))
    return drawn


def format_images(images: float) -> str:
    """A number of images in at most three digits: ``384``, ``15.4k``, ``600k``, ``1.01G``."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if images >= 0.9995 * unit:
            return f"{images / unit:.3g}{name}" if images < 999.5 * unit else f"{images / unit:.0f}{name}"
    return f"{images:.0f}"


def _panel(axes: Axes, panel: Panel) -> None:
    images = sorted({n for curve in panel.curves for n in curve.images})
    first, last = math.log10(images[0]), math.log10(images[-1])
    at_zero = first - 0.15 * (last - first)
    ticks: dict[float, str] = {}
    if any(curve.untrained for curve in panel.curves):
        ticks[at_zero] = "0"
    for n in images:
        if not ticks or math.log10(n) - max(ticks) >= LEAST_GAP * (last - first):
            ticks[math.log10(n)] = format_images(n)
    for hue, curve in enumerate(panel.curves):
        _line(axes, panel, curve, hue, at_zero)
    axes.set_xticks(list(ticks), list(ticks.values()))


def _line(axes: Axes, panel: Panel, curve: Curve, hue: int, at_zero: float) -> None:
    colour, marker = PALETTE[hue % len(PALETTE)], MARKERS[hue % len(MARKERS)]
    scale = _scale(panel)
    x = [math.log10(n) for n in curve.images]
    y = [one.mean * scale for _, one in curve.points]
    axes.errorbar(
        x,
        y,
        yerr=[_half(one) * scale for _, one in curve.points],
        color=colour,
        marker=marker,
        markersize=4.0,
        linewidth=1.4,
        elinewidth=0.9,
        capsize=2.0,
        label=curve.name or None,
        zorder=3,
    )
    if curve.untrained is not None:
        start = curve.untrained.mean * scale
        axes.plot([at_zero, x[0]], [start, y[0]], color=colour, linewidth=0.8, linestyle=":", zorder=2)
        yerr = [_half(curve.untrained) * scale]
        axes.errorbar(
            [at_zero], [start], yerr=yerr, color=colour, marker=marker, markersize=4.0, mfc="white", elinewidth=0.9, zorder=3
        )


def _crossing(axes: Axes, crossing: Crossing) -> None:
    y = crossing.value * (100 if crossing.column.percent else 1)
    x = math.log10(crossing.images)
    if crossing.low is not None and crossing.high is not None:
        span = [math.log10(crossing.low), math.log10(crossing.high)]
        axes.plot(span, [y, y], color="black", linewidth=0.8, zorder=4)
        axes.plot([x], [y], "x", color="black", ms=5, mew=1.2, zorder=5, label=SURE)
    else:
        axes.plot([x], [y], "o", mfc="none", color=GREY, ms=6.5, mew=0.9, zorder=4, label=UNSURE)


def _comparison_rows(axes: Axes, summary: Summary, panel: Panel) -> None:
    """A grey line for the raw pixels, or for real against real images."""
    names = [COMPARISON_ROWS[prefix] for prefix in OF_DATA]
    for row in summary.comparison_rows:
        one = row.estimates.get(panel.column)
        if one is not None and row.name in names:
            axes.axhline(one.mean * _scale(panel), color=GREY, linewidth=1.0, linestyle=(0, (4, 2)), zorder=1, label=row.name)


def _share_scale(all_axes: Sequence[Axes]) -> None:
    if all_axes:
        limits = [axes.get_ylim() for axes in all_axes]
        low, high = min(low for low, _ in limits), max(high for _, high in limits)
        for axes in all_axes:
            axes.set_ylim(max(low, 0), min(high, 100.5))


def _unit(panel: Panel) -> str:
    return "accuracy, % (higher is better)" if panel.column.percent else "Fréchet distance (lower is better)"


def _scale(panel: Panel) -> int:
    return 100 if panel.column.percent else 1


def _half(one: Estimate) -> float:
    return one.half or 0.0
