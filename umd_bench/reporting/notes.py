"""The lines under a table: what its numbers are, and which are missing and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from umd_bench.reporting.naming import axis_value
from umd_bench.store import SweepRecord

# Stated per stage, under these names; what a metric's reader asks first (which sampler, which guidance, which t).
_STATED = {
    "probe_position": "position",
    "probe_t": "t",
    "draws": "draws of the shots",
    "ridge": "ridge",
    "n": "n",
    "sampling_seeds": "sampling seeds",
    "labels": "labels",
    "noise_schedule": "schedule",
    "predicted": "the model predicts",
    "sampler": "sampler",
    "steps": "steps",
    "model_calls": "model calls",
    "eta": "eta",
    "cfg_scale": "guidance",
    "cfg_interval": "guidance interval",
    "ema": "EMA",
    "extractor": "extractor",
    "extractor_hash": "extractor hash",
    "reference": "reference",
    "reference_n": "reference n",
    "nimg": "images seen",
}
_MADE_WITH = {
    "data": "data",
    "data_digest": "data digest",
    "umd_bench": "umd_bench",
    "torch": "torch",
    "commit": "commit",
    "device": "device",
}


def sweep_notes(frame: pd.DataFrame, sweep: SweepRecord, stages: Sequence[str], axes: Sequence[str]) -> list[str]:
    """Notes for a table of ``stages`` of the long frame ``frame``; the columns ``axes`` tell its arms apart."""
    seeds = ", ".join(map(str, sweep.seeds))
    notes = [f"Mean ± half-width of the 95% Student t interval over training seeds {seeds}."]
    done = frame[frame["state"] == "done"]
    data = {"data": _MADE_WITH["data"], "data_digest": _MADE_WITH["data_digest"]}
    if done["data"].nunique() < 2:
        data = {}  # one for all, said once below
    for stage in stages:
        facts = _stated(done[done["stage"] == stage], _STATED | data, axes)
        if facts:
            notes.append(f"{stage}: {facts}.")
    made_with = _stated(done, {name: text for name, text in _MADE_WITH.items() if name not in data}, axes)
    if made_with:
        notes.append(f"Tier {sweep.tier}; {made_with}.")
    inexact = done.loc[~done["exact"].fillna(True), "trial"].unique().tolist()
    if inexact:
        notes.append(f"Not exact (resumed on other hardware or versions): {', '.join(inexact)}.")
    return notes + missing_notes(frame)


def missing_notes(frame: pd.DataFrame) -> list[str]:
    """One line per stage and state without a result, naming its trials; a parent's failure explains a child's."""
    missing = frame[frame["state"] != "done"]
    groups = missing.groupby(["stage", "state"], sort=False)
    return [f"Missing: {stage} of {'; '.join(rows['trial'])} ({state})." for (stage, state), rows in groups]


def _stated(rows: pd.DataFrame, names: dict[str, str], axes: Sequence[str]) -> str:
    """``n 500; t 0 (umd, mae) or 51 (dit)``: each field that has a value, and whose each is where arms differ."""
    parts = []
    for column, name in names.items():
        known = rows[rows[column].notna()]
        arms: dict[str, list[str]] = {}
        for value, *key in known[[column, *axes]].drop_duplicates().itertuples(index=False):
            arms.setdefault(_short(value), []).append(" ".join(map(axis_value, key)))
        if all(keys == [value] for value, keys in arms.items()):
            continue  # the axis itself: the table's first column says it
        if len(arms) == 1:
            parts.append(f"{name} {next(iter(arms))}")
        elif arms:
            parts.append(
                f"{name} " + " or ".join(f"{value} ({', '.join(dict.fromkeys(keys))})" for value, keys in arms.items())
            )
    return "; ".join(parts)


def _short(value: Any) -> str:
    text = axis_value(value)
    return text[:12] if len(text) >= 40 and text.isalnum() else text  # a hash
