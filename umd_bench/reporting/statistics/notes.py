"""The notes under a table: the data and settings of its numbers, and the numbers that are missing and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from umd_bench.reporting.notation.formatting import format_value
from umd_bench.reporting.notation.metrics import is_extrapolated
from umd_bench.store import SweepRecord

# Fact -> its name in the note of a stage, in this order.
_FACT_NAMES = {
    "probe_position": "position",
    "probe_t": "t",
    "chosen_on": "position and t chosen on",
    "draws": "draws of the shots",
    "ridge": "ridge",
    "ridges": "ridge chosen by leave-one-out error from",
    "linear_batch": "linear probe's batch",
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
    "fact.extractor_accuracy": "the extractor's own accuracy",
    "resize": "resize",
    "reference": "reference",
    "reference_hash": "reference hash",
    "reference_n": "reference n",
    "nimg": "images seen",
}
_EXTRACTOR_FACTS = ("extractor_hash", "fact.extractor_accuracy", "resize", "reference_hash", "reference_n")
_ORIGIN_NAMES = {
    "data": "data",
    "data_digest": "data digest",
    "umd_bench": "umd_bench",
    "torch": "torch",
    "commit": "commit",
    "device": "device",
}


def sweep_notes(frame: pd.DataFrame, sweep: SweepRecord, stages: Sequence[str], axes: Sequence[str]) -> list[str]:
    """Notes for a table of ``stages`` of the long frame ``frame``, whose arms differ in the columns ``axes``."""
    seeds = ", ".join(map(str, sweep.seeds))
    notes = [f"Mean ± half-width of the 95% Student t interval over training seeds {seeds}."]
    done = frame[frame["state"] == "done"]
    data = {"data": _ORIGIN_NAMES["data"], "data_digest": _ORIGIN_NAMES["data_digest"]}
    if done["data"].nunique() < 2:
        data = {}  # all stages read one data set, which the note on the tier names
    # A column fact.<name> is in the frame only if a stage recorded the fact, and earlier versions did not.
    names = {column: name for column, name in _FACT_NAMES.items() if column in frame}
    for stage in stages:
        rows = done[done["stage"] == stage]
        further = _with_further_extractor(rows)
        facts = format_facts(rows[~further], names | data, axes)
        if facts:
            notes.append(f"{stage}: {facts}.")
        for extractor, scored in rows[further].groupby("extractor", sort=False):
            of_extractor = {column: name for column, name in names.items() if column in _EXTRACTOR_FACTS}
            facts = format_facts(scored, of_extractor, axes)
            notes.append(f"{stage}, the same samples with {extractor}: {facts}.")
    made_with = format_facts(done, {name: text for name, text in _ORIGIN_NAMES.items() if name not in data}, axes)
    if made_with:
        notes.append(f"Tier {sweep.tier}; {made_with}.")
    inexact = done.loc[~done["exact"].fillna(True), "trial"].unique().tolist()
    if inexact:
        notes.append(f"Not exact (resumed on other hardware or versions): {', '.join(inexact)}.")
    return notes + missing_notes(frame)


def split_notes(frame: pd.DataFrame, stages: Sequence[str]) -> list[str]:
    """One sentence that says which split ``stages`` were scored on; nothing if none of them is scored."""
    scored = frame[frame["stage"].isin(stages) & frame["split"].notna()]
    if scored.empty:
        return []
    names = {str(split): list(dict.fromkeys(rows["stage"])) for split, rows in scored.groupby("split")}
    if len(names) == 1:
        return [f"Scored on the {next(iter(names))} split."]
    parts = [f"the {split} split: {', '.join(members)}" for split, members in names.items()]
    return [f"Scored on {'; on '.join(parts)}."]


def score_notes(frame: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """Explanations of the columns ``metrics``, and every memorisation alarm, even of a column that is not shown."""
    notes = []
    if any(map(is_extrapolated, metrics)):
        notes.append(
            "fd_inf, fid_inf: the distance extrapolated to infinitely many samples, by a line in 1/n through the distances "
            "at several n (Chong and Forsyth, arXiv 1911.07023). It is noisier than the distance at n, which is too large by "
            "about their difference."
        )
    if any(metric.split("_")[0] == "kid" for metric in metrics):
        notes.append(
            "kid: unbiased, so it can be below 0; computed on subsets of at most 1,000 samples and as many real images."
        )
    return notes + alarm_notes(frame)


def alarm_notes(frame: pd.DataFrame) -> list[str]:
    """A line for each stage and metric in which trials have more samples close to a training image than chance explains."""
    if "fact.alarm_above" not in frame:
        return []
    rows = frame[frame["metric"].str.fullmatch("memorised(_.+)?", na=False) & ~frame["metric"].str.endswith("_sd", na=False)]
    loud = rows[rows["value"] > rows["fact.alarm_above"].astype("Float64")]
    return [
        f"Memorisation alarm: {stage}, {metric}: a larger share of the samples than of held-out images "
        f"({float(alarms['fact.expected'].iloc[0]):.0%}) lies near a training image: "
        f"{'; '.join(f'{value:.1%} of {trial}' for trial, value in zip(alarms['trial'], alarms['value'], strict=True))}. "
        "Look at neighbours.png of these runs."
        for (stage, metric), alarms in loud.groupby(["stage", "metric"], sort=False)
    ]


def _with_further_extractor(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which rows were scored with a further extractor: the same samples, but not the stage's own extractor."""
    if "fact.further_extractor" not in rows:
        return pd.Series(False, index=rows.index)
    return rows["fact.further_extractor"].eq("true").fillna(False).astype(bool)


def missing_notes(frame: pd.DataFrame) -> list[str]:
    """The stages without a result. Stages that lack it in the same state and for the same trials share one line."""
    missing = frame[~frame["state"].isin(["done", "pruned"])]
    stages_by: dict[tuple[str, str], list[str]] = {}
    for (stage, state), rows in missing.groupby(["stage", "state"], sort=False):
        stages_by.setdefault((str(state), "; ".join(rows["trial"])), []).append(str(stage))
    return [f"Missing: {', '.join(stages)} of {trials} ({state})." for (state, trials), stages in stages_by.items()]


def format_facts(rows: pd.DataFrame, names: dict[str, str], axes: Sequence[str]) -> str:
    """``n 500; t 0 (umd, mae) or 51 (dit)``: each column in ``names`` that has a value, with the arms if the values differ.

    Arms are named by the one axis that decides the value, if there is one, else by all axes. If every arm has every one of the
    values (a commit that differs between seeds), no arm is named.
    """
    facts = rows[list(dict.fromkeys([*axes, *names]))].drop_duplicates()  # a trial's rows repeat its facts for every metric
    arm_values = {axis: [format_value(value) for value in facts[axis].tolist()] for axis in axes}
    parts = []
    for column, name in names.items():
        known = np.flatnonzero(facts[column].notna())
        values = [_short(value) for value in facts[column].iloc[known].tolist()]
        by_axis = {axis: [arm_values[axis][i] for i in known] for axis in axes}
        if values and values in by_axis.values():
            continue  # it is an axis, which has a column in the table
        deciding = next(([axis] for axis in axes if _decides(by_axis[axis], values)), list(axes))
        arms: dict[str, list[str]] = {}
        for i, value in enumerate(values):
            arms.setdefault(value, []).append(" ".join(by_axis[axis][i] for axis in deciding))
        if arms and len({frozenset(keys) for keys in arms.values()}) == 1:  # one value, or every arm has all of them
            parts.append(f"{name} {' or '.join(arms)}")
        elif arms:
            parts.append(
                f"{name} " + " or ".join(f"{value} ({', '.join(dict.fromkeys(keys))})" for value, keys in arms.items())
            )
    return "; ".join(parts)


def _decides(axis: Sequence[str], values: Sequence[str]) -> bool:
    """Whether each value of the axis goes with exactly one value of the column."""
    return len(set(zip(axis, values, strict=True))) == len(set(axis))


def _short(value: Any) -> str:
    text = format_value(value)
    return text[:12] if len(text) >= 40 and text.isalnum() else text  # a hash
