"""The two tidy frames of a sweep: one row per (trial, stage, metric), and one row per (trial, stage) with its cost.

The long frame holds nothing that depends on a machine's speed or name, so that equal runs give equal bytes on every machine;
seconds, memory and hosts are in the cost frame.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeGuard

import pandas as pd

from umd_bench.config.gc_pause import gc_paused
from umd_bench.config.sweep.arms import axis_names
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.reporting.frames.stage_records import StageReader, StageRecord
from umd_bench.store import SweepRecord, read_sweep

# These prefixes mark the metrics of comparison rows: the arm's measurement, repeated without the arm's weights.
UNTRAINED = "untrained_"
SUPERVISED = "supervised_"
COMPARISON_ROWS = {
    "pixel_": "raw pixels",
    "latent_": "raw latents",
    UNTRAINED: "untrained weights",
    SUPERVISED: "trained with labels",
    "floor_": "real images",
}
OF_DATA = ("pixel_", "latent_", "floor_")  # these depend on the data alone, not on an architecture

_IDENTITY = {"sweep": "string", "trial": "string", "method": "string"}
_STAGE = {"seed": "Int64", "stage": "string", "kind": "string", "state": "string", "metric": "string", "value": "Float64"}
# Two numbers are comparable only if they agree in these facts. A fact that the stage recorded wins over its configuration.
FACTS = {
    "split": "string",  # the held-out split of the real images: test or validation
    "n": "Int64",
    "sampling_seeds": "Int64",
    "extractor": "string",
    "extractor_hash": "string",
    "resize": "string",
    "reference": "string",
    "reference_label": "string",
    "reference_hash": "string",
    "reference_n": "Int64",
    "noise_schedule": "string",
    "predicted": "string",
    "sampler": "string",
    "steps": "Int64",
    "model_calls": "Int64",
    "eta": "Float64",
    "cfg_scale": "Float64",
    "cfg_interval": "string",
    "clip": "boolean",
    "ema": "boolean",
    "labels": "string",
    "probe_position": "string",
    "probe_t": "Int64",
    "chosen_on": "string",
    "shots": "string",
    "draws": "Int64",
    "ridge": "Float64",
    "ridges": "string",
    "linear_lr": "Float64",
    "linear_batch": "Int64",
}
# The inputs of a number, and the software and device that computed it.
ORIGIN = {
    "key": "string",
    "data": "string",
    "data_digest": "string",
    "nimg": "Int64",
    "flops": "Float64",
    "umd_bench": "string",
    "torch": "string",
    "commit": "string",
    "device": "string",
    "exact": "boolean",
}
_COST = {
    "kind": "string",
    "key": "string",
    "seconds": "Float64",
    "images_per_second": "Float64",
    "peak_memory_bytes": "Int64",
    "device": "string",
    "device_name": "string",
    "threads": "Int64",
    "world_size": "Int64",
    "host": "string",
    "attempts": "Int64",
}


def axis_columns(paths: Sequence[str]) -> dict[str, str]:
    """Axis path -> the frame's column: the path's last part, or the whole path if that part is ambiguous or taken."""
    taken = set(_IDENTITY) | set(_STAGE) | set(FACTS) | set(ORIGIN) | set(_COST)
    return {path: path if short in taken else short for path, short in axis_names(paths).items()}


def long_frame(root: Path, sweep: str) -> pd.DataFrame:
    """One row per (trial, stage, metric) of the sweep ``sweep`` recorded below ``root``, in the sweep's order.

    Metrics have their stage's unit (accuracies are fractions in [0, 1]). ``nimg`` (images) and ``flops`` are sums over the
    training of the stage's lineage. A stage without a result has one row with an empty metric and its ``state``. Facts without
    a column of their own follow as ``fact.<name>``. Raises :class:`UserError` for an unknown sweep.
    """
    return read_frames(root, sweep)[1]


def cost_frame(root: Path, sweep: str) -> pd.DataFrame:
    """One row per (trial, stage) with a result: its seconds, images per second, bytes of memory, device, host and attempts.

    A stage that several trials share has a row in each, with the same ``key``. Raises :class:`UserError` for an unknown sweep.
    """
    return read_frames(root, sweep)[2]


@gc_paused()
def read_frames(root: Path, sweep: str) -> tuple[SweepRecord, pd.DataFrame, pd.DataFrame]:
    """The sweep's record, :func:`long_frame` and :func:`cost_frame`; every run directory is read once."""
    record = read_sweep(root, sweep)
    axes = axis_columns(list(record.axes))
    stages = StageReader(root).records(record)
    rows = [row for stage in stages for row in _metric_rows(record, axes, stage)]
    extra = {name: "string" for row in rows for name in row if name.startswith("fact.")}
    long = _frame(rows, record, _STAGE | FACTS | ORIGIN | dict(sorted(extra.items())))
    costs = [_cost_row(record, axes, stage, stage.result) for stage in stages if stage.result is not None]
    return record, long, _frame(costs, record, {"seed": "Int64", "stage": "string"} | _COST)


def _cost_row(sweep: SweepRecord, axes: dict[str, str], stage: StageRecord, result: dict[str, Any]) -> dict[str, Any]:
    measured = {**result["environment"], **result["cost"], "attempts": result["attempts"]}
    return {**_identity(sweep, axes, stage), "kind": stage.kind, "key": stage.key, **measured}


def _identity(sweep: SweepRecord, columns: dict[str, str], stage: StageRecord) -> dict[str, Any]:
    trial = stage.trial
    axes = {column: trial.axes.get(path) for path, column in columns.items()}
    return {"sweep": sweep.name, "trial": trial.id, "method": trial.method, **axes, "seed": trial.seed, "stage": stage.name}


def _metric_rows(sweep: SweepRecord, axes: dict[str, str], stage: StageRecord) -> Iterable[dict[str, Any]]:
    row = _identity(sweep, axes, stage) | _configured(stage) | {"kind": stage.kind, "state": stage.state, "key": stage.key}
    row |= {"nimg": stage.nimg, "flops": stage.flops}
    if stage.result is None:
        yield row
        return
    metrics, facts = dict(stage.result["metrics"]), dict(stage.result["facts"])
    metrics |= {
        name: facts.pop(name) for name in list(facts) if name.startswith(tuple(COMPARISON_ROWS)) and _is_number(facts[name])
    }
    by_metric = facts.pop("by_metric", {})
    row |= _by_column(facts)
    environment, data = stage.result["environment"], stage.result["data"]
    row |= {"data": data["name"], "data_digest": data["digest"], "exact": stage.result["exact"]}
    row |= {name: environment.get(name) for name in ("umd_bench", "torch", "commit", "device")}
    for metric in sorted(metrics):
        own = _by_column(by_metric.get(metric.removesuffix("_sd"), {}))
        yield {**row, **own, "metric": metric, "value": metrics[metric]}


def _by_column(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts under the names of their columns, or as ``fact.<name>`` if no column has the name and the type of the value."""
    return {name if name in FACTS and _fits(value, FACTS[name]) else f"fact.{name}": value for name, value in facts.items()}


def _configured(stage: StageRecord) -> dict[str, Any]:
    """Facts from the stage's configuration, which a stage without a result has too."""
    if stage.spec is None:
        return {}
    facts: dict[str, Any] = {"data": stage.spec.input_data.name}
    match stage.spec.stage:
        case ProbeStage() as probe:
            facts |= {"split": probe.split, "probe_t": probe.t}
            if probe.shots:
                facts |= {"shots": list(probe.shots), "draws": probe.draws}
                facts |= {"ridges": list(probe.ridge)} if isinstance(probe.ridge, tuple) else {"ridge": probe.ridge}
        case GenerateStage() as generate:
            names = ("n", "sampling_seeds", "extractor", "reference", "sampler", "steps", "eta", "cfg_scale", "clip", "labels")
            facts |= {name: getattr(generate, name) for name in (*names, "cfg_interval")}
            facts |= {"noise_schedule": stage.spec.noise.schedule, "predicted": stage.spec.noise.prediction}
            facts["split"] = generate.held_out_split
            facts["ema"] = generate.ema and stage.spec.parent_ema
    return facts


def _fits(value: object, dtype: str) -> bool:
    """Whether a fact has the type of its column; if not (a list instead of a number), it gets a column of its own."""
    match dtype:
        case "boolean":
            return value is None or isinstance(value, bool)
        case "Int64":
            return value is None or (_is_number(value) and value == int(value))
        case "Float64":
            return value is None or _is_number(value)
    return True


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _frame(rows: list[dict[str, Any]], sweep: SweepRecord, columns: dict[str, str]) -> pd.DataFrame:
    """A frame with exactly these columns and types; a row may lack some."""
    axes = {
        column: _axis_dtype([trial.axes.get(path) for trial in sweep.trials])
        for path, column in axis_columns(list(sweep.axes)).items()
        if column != "method"
    }
    dtypes = _IDENTITY | axes | columns
    given = {name for row in rows for name in row}
    data = {name: [_plain(row.get(name), dtype) for row in rows] if name in given else pd.NA for name, dtype in dtypes.items()}
    return pd.DataFrame(data, index=range(len(rows)), dtype=object).astype(dtypes)


def _axis_dtype(values: Sequence[Any]) -> str:
    if all(isinstance(value, bool) for value in values):
        return "boolean"
    if all(_is_number(value) for value in values):
        return "Int64" if all(isinstance(value, int) for value in values) else "Float64"
    return "string"


def _plain(value: Any, dtype: str) -> Any:
    if value is None:
        return pd.NA
    if dtype == "string":
        return value if isinstance(value, str) else json.dumps(value)
    return value
