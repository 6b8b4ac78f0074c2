"""Curves against images seen, of a sweep whose x axis is a snapshot, and the points where the order of two arms changes.

Between two snapshots a curve is a straight line over the logarithm of the images seen. Two arms are compared seed by seed, as
in the table of differences. So a crossing has an interval, the range of images seen in which the 95% interval of the paired
difference contains 0 (Fieller, J. R. Statist. Soc. B 16, 175-185, 1954, for a ratio of means).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from umd_bench.config.sweep.arms import arm_name
from umd_bench.config.sweep.sweep import axis_paths
from umd_bench.reporting.frames.sweep_frames import UNTRAINED, axis_columns
from umd_bench.reporting.notation.formatting import format_value
from umd_bench.reporting.notation.metrics import direction, is_extrapolated
from umd_bench.reporting.statistics.summary import Column, Estimate, Summary, estimate, quantile

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One column of one arm over its snapshots.

    ``points`` are (images seen, estimate), images ascending. ``untrained`` is the same read-out of the initial weights, at 0
    images; None if it was not measured.
    """

    name: str
    points: tuple[tuple[int, Estimate], ...]
    untrained: Estimate | None = None

    @property
    def images(self) -> tuple[int, ...]:
        """Images seen at each point."""
        return tuple(images for images, _ in self.points)

    def at(self, images: float) -> float:
        """The mean at ``images``, which lies within the curve's range."""
        means = [one.mean for _, one in self.points]
        return float(np.interp(math.log(images), np.log(self.images), means))


@dataclass(frozen=True)
class Panel:
    """The curves of one column, in the sweep's order of the arms."""

    column: Column
    curves: tuple[Curve, ...]


@dataclass(frozen=True)
class Crossing:
    """Where the mean of ``after`` overtakes the mean of ``before``, at ``images`` seen, in one column.

    ``low`` and ``high`` bound the crossing's interval. A bound is None if the paired difference's interval contains 0 at every
    snapshot on that side, or if there is one seed. ``crossing_seeds`` of ``n`` seeds show the same change of order. ``value``
    is the common value at the crossing, in the metric's own unit.
    """

    column: Column
    before: str
    after: str
    images: float
    value: float
    low: float | None
    high: float | None
    crossing_seeds: int
    n: int

    @property
    def decided(self) -> bool:
        """Whether the interval of the paired difference shows each arm ahead on its side of the crossing."""
        return self.low is not None and self.high is not None


@dataclass(frozen=True)
class Curves:
    """The panels of a sweep's snapshot axis, and the crossings in them, by column and images seen."""

    panels: tuple[Panel, ...]
    crossings: tuple[Crossing, ...]
    notes: tuple[str, ...]

    def frame(self) -> pd.DataFrame:
        """The crossings in full precision, one a row; ``low95`` and ``high95`` are empty where the interval is open."""
        dtypes = {"images": "Float64", "low95": "Float64", "high95": "Float64", "crossing_seeds": "Int64", "n": "Int64"}
        rows = [
            {
                "stage": one.column.stage,
                "metric": one.column.metric,
                "variant": one.column.variant,
                "before": one.before,
                "after": one.after,
                "images": one.images,
                "low95": one.low,
                "high95": one.high,
                "crossing_seeds": one.crossing_seeds,
                "n": one.n,
                "decided": one.decided,
            }
            for one in self.crossings
        ]
        names = ["stage", "metric", "variant", "before", "after", *dtypes, "decided"]
        return pd.DataFrame(rows, columns=names, dtype=object).astype({**dtypes, "decided": "boolean"})


def read_curves(summary: Summary) -> Curves | None:
    """The curves of a summary; None if its x axis is no snapshot, if it is a search, or if no curve has two points yet."""
    path = next((path for path, name in axis_columns(list(summary.sweep.axes)).items() if name == summary.x), None)
    if path is None or summary.sweep.search is not None:
        return None
    fields = [one.split(".") for one in axis_paths(path)]
    if any(len(field) != 3 or field[0] != "stages" or field[2] != "snapshot" for field in fields):
        return None
    panels = tuple(
        panel
        for stage in dict.fromkeys(field[1] for field in fields)
        if (column := _drawn_column(summary, stage)) and (panel := _panel(summary, column)) is not None
    )
    if not panels:
        return None
    crossings = tuple(crossing for panel in panels for crossing in _crossings(panel))
    return Curves(panels, crossings, tuple(_notes(panels)))


def _drawn_column(summary: Summary, stage: str) -> Column | None:
    """The column of a stage that is drawn.

    For a probe it is the last accuracy (the linear probe, else the largest k-NN, else the largest number of shots), for samples
    the first distance.
    """
    columns = [column for column in summary.columns if column.stage == stage]
    accuracies = [column for column in columns if column.metric.startswith("acc_")]
    distances = [c for c in columns if c.metric.startswith(("fid", "fd_")) and not is_extrapolated(c.metric)]
    return accuracies[-1] if accuracies else next(iter(distances), None)


def _panel(summary: Summary, column: Column) -> Panel | None:
    others = [axis for axis in summary.axes if axis != summary.x]
    rows = summary.long[(summary.long["stage"] == column.stage) & summary.long["nimg"].notna()]
    images = dict(zip(rows["trial"], rows["nimg"].astype(int), strict=True))
    untrained = rows[rows["metric"] == UNTRAINED + column.metric].set_index("trial")["value"].dropna()
    points: dict[str, dict[int, Estimate]] = {}
    starts: dict[str, dict[int, float]] = {}
    seeds = {trial.id: trial.seed for trial in summary.sweep.trials}
    for row in summary.arms:
        seen = next((images[trial] for trial in row.trials if trial in images), None)  # a trial's stage may not have begun
        if column not in row.estimates or seen is None:
            continue
        values = {axis: row.axes[axis] for axis in others}
        name = arm_name(values) if len(values) > 1 else ""
        for axis, value in values.items() if not name else ():  # a word needs no axis to be understood; a number or "yes" does
            name = value if isinstance(value, str) else f"{axis} {format_value(value)}"
        points.setdefault(name, {})[seen] = row.estimates[column]
        starts.setdefault(name, {}).update({seeds[t]: float(untrained[t]) for t in row.trials if t in untrained.index})
    curves = [
        Curve(name, tuple(sorted(by_images.items())), estimate(list(start.values()), list(start)) if start else None)
        for (name, by_images), start in zip(points.items(), starts.values(), strict=True)
        if len(by_images) > 1
    ]
    return Panel(column, tuple(curves)) if curves else None


def _crossings(panel: Panel) -> list[Crossing]:
    sign = -1.0 if direction(panel.column.metric) == "down" else 1.0
    found = [
        crossing
        for one, other in itertools.combinations(panel.curves, 2)
        if (pair := _differences(one, other, sign)) is not None
        for crossing in _crossings_of(panel.column, one, other, *pair)
    ]
    return sorted(found, key=lambda crossing: crossing.images)


def _differences(one: Curve, other: Curve, sign: float) -> tuple[Vector, Vector] | None:
    """The logs ``[P]`` of the images of either arm's snapshots, and ``sign * (one - other)`` of each seed there, ``[S, P]``.

    Only snapshots in the range that both arms cover count, and only seeds with a value at every snapshot of both arms. None if
    there is no such seed, or fewer than two points.
    """
    low, high = max(one.images[0], other.images[0]), min(one.images[-1], other.images[-1])
    grid = np.log([n for n in sorted({*one.images, *other.images}) if low <= n <= high])
    ours, theirs = _by_seed(one), _by_seed(other)
    seeds = [seed for seed in ours if seed in theirs]
    if not seeds or len(grid) < 2:
        return None
    rows = [
        np.interp(grid, np.log(one.images), ours[seed]) - np.interp(grid, np.log(other.images), theirs[seed]) for seed in seeds
    ]
    return grid, sign * np.array(rows)


def _by_seed(curve: Curve) -> dict[int, list[float]]:
    """The values at all points, of the seeds that have a value at every one."""
    by_point = [dict(zip(point.seeds, point.values, strict=True)) for _, point in curve.points]
    return {seed: [values[seed] for values in by_point] for seed in by_point[0] if all(seed in values for values in by_point)}


def _crossings_of(column: Column, one: Curve, other: Curve, grid: Vector, differences: Vector) -> Iterator[Crossing]:
    mean = differences.mean(axis=0)
    for segment, part, falls in _sign_changes(mean):
        place = grid[segment] + part * (grid[segment + 1] - grid[segment])
        low, high = _fieller_interval(grid, differences, segment, part)
        before, after = (one, other) if falls else (other, one)
        images = math.exp(place)
        yield Crossing(
            column=column,
            before=before.name,
            after=after.name,
            images=images,
            value=(one.at(images) + other.at(images)) / 2,
            low=None if low is None else math.exp(low),
            high=None if high is None else math.exp(high),
            crossing_seeds=sum(any(f == falls for *_, f in _sign_changes(row)) for row in differences),
            n=len(differences),
        )


def _sign_changes(values: Vector) -> Iterator[tuple[int, float, bool]]:
    """Where the piecewise linear curve through ``values`` ``[P]`` changes its sign.

    Yields the segment, the place in it in [0, 1], and whether the curve falls. A zero between two values of one sign does not
    count.
    """
    nonzero = [place for place, value in enumerate(values) if value != 0]
    for left, right in itertools.pairwise(nonzero):
        if (values[left] > 0) != (values[right] > 0):
            step = abs(values[left]) / (abs(values[left]) + abs(values[left + 1]))  # 1 if a zero follows
            yield left, float(step), bool(values[left] > 0)


def _fieller_interval(grid: Vector, differences: Vector, segment: int, part: float) -> tuple[float | None, float | None]:
    """The log images around a crossing between which the mean difference's interval contains 0; None where it has no end."""
    if len(differences) < 2:
        return None, None
    segments = len(grid) - 1

    def at(index: int, place: float) -> float:
        return float(grid[index] + place * (grid[index + 1] - grid[index]))

    def ends(index: int) -> list[float]:
        return _interval_ends(differences[:, index], differences[:, index + 1])

    tolerance = 1e-6  # of a segment: without any variance both ends are the crossing
    left = [at(segment, end) for end in ends(segment) if end <= part + tolerance]
    right = [at(segment, end) for end in ends(segment) if end >= part - tolerance]
    for index in range(segment - 1, -1, -1):
        left = left or [at(index, end) for end in ends(index)]
    for index in range(segment + 1, segments):
        right = right or [at(index, end) for end in ends(index)]
    return (max(left) if left else None), (min(right) if right else None)


def _interval_ends(start: Vector, end: Vector) -> list[float]:
    """The places in [0, 1] of a segment at which the interval of the mean begins or ceases to contain 0.

    ``start`` and ``end`` ``[S]`` are the seeds' differences at its two ends. The seeds' differences are linear in the place, so
    the condition ``mean^2 = (q s)^2 / n`` is quadratic in it.
    """
    n = len(start)
    step = end - start
    covariance = np.atleast_2d(np.cov(np.stack([start, step])))
    width = quantile(n) ** 2 / n
    a = step.mean() ** 2 - width * covariance[1, 1]
    b = 2 * (start.mean() * step.mean() - width * covariance[0, 1])
    c = start.mean() ** 2 - width * covariance[0, 0]
    roots = np.roots([a, b, c])
    return sorted(float(root.real) for root in roots if abs(root.imag) < 1e-6 and 0 <= root.real <= 1)


def _notes(panels: Sequence[Panel]) -> list[str]:
    shown = ", ".join(panel.column.title.removesuffix(" %") for panel in panels)
    untrained = any(curve.untrained for panel in panels for curve in panel.curves)
    notes = ["Hollow marks at 0 images: the same read-out of the initial weights."] if untrained else []
    return [
        *notes,
        f"Crossings of the curves in the figure ({shown}), from the first snapshot on. Between snapshots a curve is a straight "
        "line over the logarithm of the images seen.",
        "95% interval: the numbers of images at which the interval of the paired difference contains 0 (Fieller, 1954). It is "
        "open where neither arm is ahead by its interval at any snapshot on that side: no order is shown there. The intervals "
        "are not corrected for the number of pairs and snapshots.",
        "A snapshot is not the end of a shorter training: its learning rate has not decayed yet.",
    ]
