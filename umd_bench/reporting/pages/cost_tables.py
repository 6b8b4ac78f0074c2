"""The cost of a sweep as text: each stage's seconds and memory, and the cost of pre-training arm by arm.

Images and operations are the same on every machine; speed, time and memory depend on the machines that ran the stages.
"""

from __future__ import annotations

import pandas as pd

from umd_bench.reporting.notation.formatting import MISSING, format_value
from umd_bench.reporting.pages.table_formats import markdown_table, warning_lines
from umd_bench.reporting.statistics.summary import Summary

_HOUR_SECONDS = 3600
_STAGE_COLUMNS = (
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


def markdown(summary: Summary, title: str) -> str:
    """A Markdown page: :func:`cost_summary`, and :func:`arm_costs` if any pre-training is done."""
    lines = [*warning_lines(summary.warning), f"# What {title} cost", "", *markdown_table(cost_summary(summary.costs))]
    by_arm = arm_costs(summary, summary.costs)
    if len(by_arm):
        lines += ["", "## Pre-training, arm by arm", "", *markdown_table(by_arm)]
    return "\n".join(lines) + "\n"


def cost_summary(costs: pd.DataFrame) -> pd.DataFrame:
    """One row per stage of the sweep, over its distinct keys: a stage that trials share is counted once."""
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
    return pd.DataFrame(rows, columns=list(_STAGE_COLUMNS), dtype="string")


def arm_costs(summary: Summary, costs: pd.DataFrame) -> pd.DataFrame:
    """One row per arm whose pre-training is done; empty if none is.

    An axis is left out if arms that differ along it share their pre-training. ``device-hours`` is the mean over seeds of the
    seconds of the attempt that finished the stage, times its devices; ``images/s`` is the median.
    """
    facts = summary.long[summary.long["kind"] == "pretrain"].drop_duplicates(["trial", "stage"])
    done = costs[costs["kind"] == "pretrain"].merge(facts[["trial", "stage", "nimg", "flops"]], on=["trial", "stage"])
    axes = [axis for axis in summary.axes if _matters(done, axis, summary.axes)] or list(summary.axes[:1])
    rows = []
    for key, runs in done.groupby(axes, sort=False, dropna=False):
        nimg, flops = runs["nimg"].iloc[0], runs["flops"].iloc[0]
        hours = runs["seconds"].mean() * runs["world_size"].iloc[0] / _HOUR_SECONDS
        rows.append(
            {
                **dict(zip(axes, map(format_value, key), strict=True)),
                "seeds": str(runs["seed"].nunique()),
                "images": f"{nimg:,}",
                "MFLOP/image": f"{flops / nimg / 1e6:,.4g}",
                "PFLOP": f"{flops / 1e15:,.4g}",
                "images/s": f"{runs['images_per_second'].median():,.0f}",
                "device-hours": f"{hours:.3g}",
                "device": " or ".join(sorted(runs["device_name"].dropna().unique())),
            }
        )
    return pd.DataFrame(rows, dtype="string")


def _matters(runs: pd.DataFrame, axis: str, axes: tuple[str, ...]) -> bool:
    """Whether some arms that differ along ``axis`` alone have different pre-trainings."""
    others = [*(other for other in axes if other != axis), "seed", "stage"]
    return bool((runs.groupby(others, dropna=False)["key"].nunique() > 1).any())


def _number(value: float | None) -> str:
    return MISSING if value is None or pd.isna(value) else f"{value:,.0f}"
