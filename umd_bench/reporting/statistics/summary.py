"""Summarizes the long frame: one row per arm and one column per (stage, metric), with intervals over seeds.

An interval is Student's t at 95% over training seeds; one seed has none. Numbers that are not comparable (another n, extractor
or reference set) never share a column: the column is split into variants, and each header names the difference.
"""

from __future__ import annotations

import fnmatch
import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.arms import arm_indices, arm_name
from umd_bench.config.sweep.tier_card import tier_warning
from umd_bench.reporting.frames.sweep_frames import COMPARISON_ROWS, OF_DATA, UNTRAINED, axis_columns, read_frames
from umd_bench.reporting.notation.formatting import NOT_ABOVE, format_value
from umd_bench.reporting.notation.metrics import (
    REPORTED_KINDS,
    family,
    header,
    is_percent,
    scale,
    shown_by_default,
    sort_key,
    title,
)
from umd_bench.reporting.statistics.notes import score_notes, split_notes, sweep_notes
from umd_bench.store import SweepRecord

CONFIDENCE = 0.95
# If two numbers of one metric differ in any of these, their difference says nothing about the arms.
COMPARABLE = ("n", "extractor", "extractor_hash", "reference", "reference_n", "data", "data_digest")
# Also required, but older results do not record them. So they split a column only where two recorded values differ among rows
# that agree in all fields above.
COMPARABLE_IF_RECORDED = ("resize", "reference_hash", "split")


@dataclass(frozen=True)
class Column:
    """One metric of one stage; ``variant`` (``n=500``) tells apart columns of one metric that are not comparable."""

    stage: str
    metric: str
    variant: str = ""

    @property
    def header(self) -> str:
        """For people, with an arrow towards better values."""
        return header(self.stage, self.metric) + (f" ({self.variant})" if self.variant else "")

    @property
    def title(self) -> str:
        """For people, without the arrow."""
        return title(self.stage, self.metric) + (f" ({self.variant})" if self.variant else "")

    @property
    def percent(self) -> bool:
        """Whether the values are fractions shown times 100."""
        return is_percent(self.metric)

    @property
    def scale(self) -> int:
        """The factor that a table multiplies the values by, apart from percent."""
        return scale(self.metric)


@dataclass(frozen=True)
class Estimate:
    """Mean over ``n`` values and half the width of its interval (None for one value), in the metric's own unit.

    ``seeds`` are the training seeds of the ``values``; empty for a comparison row.
    """

    mean: float
    half: float | None
    n: int
    values: tuple[float, ...]
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Row:
    """The estimates of one arm (``axes``: column -> value), or of one comparison row (``name``), such as "raw pixels".

    ``trials`` are the ids of the arm's trials, or of all trials that the comparison row belongs to. ``gains`` of an arm are its
    differences from its own initial weights, where these were probed too; they are taken seed by seed.
    """

    axes: dict[str, Any]
    estimates: dict[Column, Estimate]
    name: str = "arm"
    trials: tuple[str, ...] = ()
    gains: dict[Column, Estimate] = field(default_factory=dict)

    def above_untrained(self, column: Column) -> bool | None:
        """Whether the interval of the gain lies above 0, or for one seed the gain itself; None if there is no gain."""
        gain = self.gains.get(column)
        return None if gain is None else gain.mean - (gain.half or 0.0) > 0


@dataclass(frozen=True)
class Summary:
    """A sweep's arms and comparison rows with their estimates.

    The estimates were made from the frame ``long``; ``costs`` has the costs of the same stages. The sweep's axis ``x`` is the x
    axis of a figure. ``notes`` say what the numbers are and which are missing. The other arms are compared with ``baseline``.
    ``warning`` heads everything that shows the numbers, if nothing can be concluded from the sweep's tier; else it is empty.
    """

    sweep: SweepRecord
    long: pd.DataFrame
    costs: pd.DataFrame
    axes: tuple[str, ...]
    x: str
    columns: tuple[Column, ...]
    arms: tuple[Row, ...]
    comparison_rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = field(default=())
    baseline: Row | None = None
    warning: str = ""

    def frame(self) -> pd.DataFrame:
        """Full precision, one row per arm and comparison row: ``row``, the axes, then ``<stage>.<metric>.mean|half95|n``.

        Columns whose initial weights were probed too also have ``<stage>.<metric>.above_untrained`` (:class:`Row`).
        """
        rows = []
        compared = {column for arm in self.arms for column in arm.gains}
        for row in (*self.arms, *self.comparison_rows):
            cells: dict[str, Any] = {"row": row.name, **{axis: row.axes.get(axis) for axis in self.axes}}
            for column in self.columns:
                name = f"{column.stage}.{column.metric}" + (f"[{column.variant}]" if column.variant else "")
                estimate = row.estimates.get(column)
                cells[f"{name}.mean"] = None if estimate is None else estimate.mean
                cells[f"{name}.half95"] = None if estimate is None else estimate.half
                cells[f"{name}.n"] = 0 if estimate is None else estimate.n
                if column in compared:
                    cells[f"{name}.above_untrained"] = row.above_untrained(column)
            rows.append(cells)
        frame = pd.DataFrame(rows, dtype=object)
        dtypes = {"mean": "Float64", "half95": "Float64", "n": "Int64", "above_untrained": "boolean"}
        typed = [name for name in map(str, frame) if name not in ("row", *self.axes)]
        return frame.astype({name: dtypes[name.rpartition(".")[2]] for name in typed})


def summarize(
    root: Path, sweep: str, *, x: str | None = None, metrics: Sequence[str] = (), against: Mapping[str, Any] | None = None
) -> Summary:
    """Summarize the sweep ``sweep`` recorded below ``root``.

    Override the sweep's own report settings with ``x`` (an axis's path), ``metrics`` (``stage.metric``, where ``*`` matches any
    part) and ``against`` (axis -> value of the arm to compare with). Raises :class:`UserError` for an unknown sweep, axis,
    metric or arm.
    """
    record, long, costs = read_frames(root, sweep)
    axes = axis_columns(list(record.axes)) or {"method": "method"}
    chosen = x or record.report.x or next(iter(axes))
    if chosen not in axes:
        raise UserError(f"sweep {sweep}: x = {chosen!r} is not an axis: expected one of {', '.join(axes)}")
    frame = long.assign(variant=_variants(long))
    rungs = set() if record.search is None else record.search.config.rung_stages.keys()
    columns = _columns(frame, metrics or record.report.metrics, sweep, hidden=rungs)
    measured = _measured(frame, tuple(axes.values()))
    arms = tuple(_arms(measured, tuple(axes.values()), columns))
    stages = list(dict.fromkeys(column.stage for column in columns))
    notes = split_notes(frame, stages) + sweep_notes(frame, record, stages, list(axes.values()))
    notes += score_notes(frame, [column.metric for column in columns]) + _gain_notes(arms)
    baseline = _baseline(record, arms, record.report.baseline if against is None else against)
    return Summary(
        sweep=record,
        long=long,
        costs=costs,
        axes=tuple(axes.values()),
        x=axes[chosen],
        columns=columns,
        arms=arms,
        comparison_rows=tuple(_comparison_rows(measured, tuple(axes.values()), columns)),
        notes=tuple(notes),
        baseline=baseline,
        warning=tier_warning(record.tier),
    )


def estimate(values: Sequence[float], seeds: Sequence[int] = ()) -> Estimate:
    """Mean of n >= 1 ``values``, and the half-width ``t_{n-1} s / sqrt(n)`` of its 95% interval (None for one value)."""
    n = len(values)
    half = None
    if n > 1:
        half = quantile(n) * statistics.stdev(values) / math.sqrt(n)
    return Estimate(statistics.fmean(values), half, n, tuple(values), tuple(seeds))


@cache
def quantile(n: int) -> float:
    """Half the width of the 95% interval of a mean over ``n`` >= 2 values, in standard errors."""
    return float(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1))


def _variants(frame: pd.DataFrame) -> list[str]:
    """For each row its variant: the comparability fields in which rows of its (stage, metric) differ, or nothing."""
    variants = [""] * len(frame)
    for _, rows in frame[frame["value"].notna()].groupby(["stage", "metric"], sort=False):
        varying = [name for name in COMPARABLE if rows[name].nunique(dropna=False) > 1]
        for name in COMPARABLE_IF_RECORDED:
            alike = rows.groupby(varying, dropna=False)[name].nunique() if varying else rows[name].nunique()
            if np.max(alike) > 1:
                varying.append(name)
        if not varying:
            continue
        fields = rows[varying].itertuples(index=False, name=None)
        for place, values in zip(frame.index.get_indexer(rows.index), fields, strict=True):
            variants[place] = ", ".join(f"{name}={str(value)[:12]}" for name, value in zip(varying, values, strict=True))
    return variants


def _columns(frame: pd.DataFrame, patterns: Sequence[str], sweep: str, *, hidden: Collection[str]) -> tuple[Column, ...]:
    """The columns that match ``patterns``, in the patterns' order. Without patterns: the default columns, by stage and family.

    ``hidden`` stages, the rungs of a search, are shown only by a pattern that names one without ``*``.
    """
    measured = frame[frame["value"].notna()]
    known = [Column(*key) for key in measured[["stage", "metric", "variant"]].drop_duplicates().itertuples(index=False)]
    stages = list(dict.fromkeys(frame["stage"]))
    known.sort(key=lambda c: (stages.index(c.stage), sort_key(c.metric)))
    if not patterns:
        kinds = dict(zip(measured["stage"], measured["kind"], strict=True))
        shown = {stage: shown_by_default([c.metric for c in known if c.stage == stage]) for stage in stages}
        reported = [c for c in known if c.stage not in hidden and kinds[c.stage] in REPORTED_KINDS]
        return tuple(c for c in reported if c.metric in shown[c.stage])
    chosen: dict[Column, None] = {}
    for pattern in patterns:
        matching = [
            c for c in known if fnmatch.fnmatchcase(f"{c.stage}.{c.metric}", pattern) and not _is_of_comparison_row(c.metric)
        ]
        if "*" in pattern:  # may match nothing, and matches scores only, not their spreads
            matching = [c for c in matching if family(c.metric) is not None and c.stage not in hidden]
        elif not matching and not _is_pending(frame, pattern.partition(".")[0]):
            names = ", ".join(dict.fromkeys(f"{c.stage}.{c.metric}" for c in known)) or "none yet"
            raise UserError(f"sweep {sweep}: no metric matches {pattern!r}; metrics with a value: {names}")
        chosen |= dict.fromkeys(matching)
    return tuple(chosen)


def _is_pending(frame: pd.DataFrame, stage: str) -> bool:
    """Whether the sweep has such a stage but no value of it yet, so that its metrics are not known."""
    rows = frame[frame["stage"] == stage]
    return len(rows) > 0 and bool(rows["value"].isna().all())


@dataclass(frozen=True)
class _Measured:
    """The finite values of one arm (column -> training seed -> value), its axis values and its trials."""

    key: tuple[Any, ...]
    trials: tuple[str, ...]
    values: Mapping[Column, Mapping[int, float]]

    def of(self, column: Column, prefix: str = "") -> Mapping[int, float]:
        """The values of the column's metric, or of the comparison row's metric that ``prefix`` makes of it, by seed."""
        return self.values.get(Column(column.stage, prefix + column.metric, column.variant), {})


def _measured(frame: pd.DataFrame, axes: tuple[str, ...]) -> list[_Measured]:
    """The arms in the order in which the frame has them."""
    arms = []
    for key, rows in frame.groupby(list(axes), sort=False, dropna=False):
        values: dict[Column, dict[int, float]] = {}
        known = rows[rows["value"].notna()]
        fields = (known[name].tolist() for name in ("stage", "metric", "variant", "seed", "value"))
        for stage, metric, variant, seed, value in zip(*fields, strict=True):
            if math.isfinite(value):
                values.setdefault(Column(stage, metric, variant), {})[seed] = value
        arms.append(_Measured(key, tuple(rows["trial"].unique()), values))
    return arms


def _arms(measured: Sequence[_Measured], axes: tuple[str, ...], columns: Sequence[Column]) -> list[Row]:
    arms = []
    for arm in measured:
        estimates, gains = {}, {}
        for column in columns:
            values, untrained = arm.of(column), arm.of(column, UNTRAINED)
            if values:
                estimates[column] = estimate(list(values.values()), list(values))
            both = [seed for seed in values if seed in untrained]
            if both:
                gains[column] = estimate([values[seed] - untrained[seed] for seed in both], both)
        arms.append(Row(dict(zip(axes, arm.key, strict=True)), estimates, trials=arm.trials, gains=gains))
    return arms


def _gain_notes(arms: Sequence[Row]) -> list[str]:
    """The note that explains the dagger of cells not above their own initial weights, if a cell has one."""
    if not any(arm.above_untrained(column) is False for arm in arms for column in arm.gains):
        return []
    return [
        f"{NOT_ABOVE} Not shown to be above the arm's own untrained weights: of the differences to them, taken seed by seed, "
        "the 95% Student t interval reaches 0 or less (of one seed: the difference)."
    ]


def _baseline(record: SweepRecord, arms: Sequence[Row], given: Mapping[str, Any] | None) -> Row | None:
    """The arm with the ``given`` axis values; None if they are None."""
    if given is None:
        return None
    try:
        places = arm_indices(record.axes, given)
    except ValueError as error:
        raise UserError(f"sweep {record.name}: the arm to compare with: {error}") from None
    values = {path: record.axes[path][place] for path, place in places.items()}
    trial = next((trial.id for trial in record.trials if trial.axes == values), None)
    if trial is None:  # a search does not try every combination of its values
        raise UserError(f"sweep {record.name}: the arm to compare with: there is no trial {arm_name(values)}")
    return next(arm for arm in arms if trial in arm.trials)


@dataclass
class _ComparisonRow:
    """The values of one comparison row (column -> seed -> value), and the ``arms`` (tuples of axis values) that have them."""

    values: dict[Column, dict[int, float]]
    arms: list[tuple[Any, ...]]
    trials: list[str]

    def agrees(self, values: Mapping[Column, Mapping[int, float]], *, shared: bool) -> bool:
        """Whether every number that the row and the arm both have is the same up to rounding.

        With ``shared``, they must have at least one number in common.
        """
        same = [
            math.isclose(value, self.values[column][seed], rel_tol=1e-9)
            for column, by_seed in values.items()
            for seed, value in by_seed.items()
            if seed in self.values.get(column, {})
        ]
        return all(same) and (bool(same) or not shared)

    def add(self, arm: tuple[Any, ...], trials: Sequence[str], values: Mapping[Column, Mapping[int, float]]) -> None:
        """Add the values of an arm that agrees."""
        self.arms.append(arm)
        self.trials += trials
        for column, by_seed in values.items():
            self.values[column] = self.values.get(column, {}) | dict(by_seed)


def _comparison_rows(measured: Sequence[_Measured], axes: tuple[str, ...], columns: Sequence[Column]) -> Iterator[Row]:
    """One row per kind of comparison; if its values differ between arms, one per set of values, with these arms in its name.

    If an arm lacks a stage and so some of the values, it joins the first row whose values agree with all that it has. Pixels
    and real images are the same in every arm. Other rows depend on the architecture, so there an arm joins a row only if they
    have a number in common.
    """
    for prefix, name in COMPARISON_ROWS.items():
        groups: list[_ComparisonRow] = []
        for arm in measured:
            values = {column: by_seed for column in columns if (by_seed := arm.of(column, prefix))}
            if not values:
                continue
            shared = prefix not in OF_DATA
            group = next((group for group in groups if group.agrees(values, shared=shared)), None)
            if group is None:
                group = _ComparisonRow({}, [], [])
                groups.append(group)
            group.add(arm.key, arm.trials, values)
        labels = _group_labels([group.arms for group in groups], axes)
        for group, label in zip(groups, labels, strict=True):
            estimates = {}
            for column in (column for column in columns if column in group.values):
                per_seed = [value for _, value in sorted(group.values[column].items())]
                once = prefix in OF_DATA and len(set(per_seed)) == 1  # the value does not depend on the seed
                estimates[column] = estimate(per_seed[:1] if once else per_seed)
            yield Row({}, estimates, f"{name} ({label})" if label else name, trials=tuple(group.trials))


def _group_labels(groups: Sequence[Sequence[tuple[Any, ...]]], axes: tuple[str, ...]) -> list[str]:
    """A label for each group of arms: the values of the one axis that tells the groups apart, or else of all axes.

    A lone group needs no label. A value of the axis ``method`` is shown alone, other values with their axis's name.
    """
    if len(groups) < 2:
        return [""] * len(groups)
    for place, axis in enumerate(axes):
        values = [list(dict.fromkeys(format_value(arm[place]) for arm in arms)) for arms in groups]
        if len({value for own in values for value in own}) == sum(map(len, values)):
            return [("" if axis == "method" else f"{axis} ") + ", ".join(own) for own in values]
    return ["; ".join(", ".join(map(format_value, arm)) for arm in arms) for arms in groups]


def _is_of_comparison_row(metric: str) -> bool:
    return metric.startswith(tuple(COMPARISON_ROWS))
