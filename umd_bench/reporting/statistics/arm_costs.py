"""What pre-training cost, arm by arm: images, operations, images a second and device-hours.

Images and operations are the same everywhere; the rest is of the machines it ran on, so the table stands with the costs.
"""

from __future__ import annotations

import pandas as pd

from umd_bench.reporting.frames.naming import axis_value
from umd_bench.reporting.statistics.summary import Summary

_HOUR_SECONDS = 3600


def arm_costs(summary: Summary, costs: pd.DataFrame) -> pd.DataFrame:
    """One row an arm whose pre-training is done, as text; empty where none is.

    Axes along which nothing is pre-trained apart are left out. ``device-hours`` are the mean over seeds of the
    stage's seconds in the attempt that finished it; ``images/s`` are the median.
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
                **dict(zip(axes, map(axis_value, key), strict=True)),
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
    """Whether arms that differ along ``axis`` alone were pre-trained apart."""
    others = [*(other for other in axes if other != axis), "seed", "stage"]
    return bool((runs.groupby(others, dropna=False)["key"].nunique() > 1).any())
