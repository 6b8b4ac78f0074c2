"""The contents of one trial for a tracking store: parameters, tags, metrics and times, as plain values.

All of them, including times, are functions of the run directories: projecting twice sends equal values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umd_bench.config.sweep.sweep import axis_paths
from umd_bench.config.trial.train_stage import WeightsStage
from umd_bench.store import RunDir, SweepRecord, TrialRecord

CURVE_POINTS = 100
MAX_PARAMS = 100  # MLflow's limit for one batch; the axes come first, so truncation never drops a varied field
_NO_CURVE = frozenset({"event", "time", "attempt", "nimg", "images_per_second"})


@dataclass(frozen=True)
class Point:
    """One value of a metric after ``step`` images, at ``time_ms`` (milliseconds since 1970)."""

    name: str
    value: float
    step: int
    time_ms: int


def trial_tag(trial: TrialRecord) -> str:
    """The trial's id and twelve hex digits, which change with the key of any of its stages."""
    keys = json.dumps(trial.stages, sort_keys=True)
    return f"{trial.id}#{hashlib.sha256(keys.encode()).hexdigest()[:12]}"


def stage_states(root: Path, trial: TrialRecord, *, pruned: bool = False) -> dict[str, str]:
    """Each stage's state: ``done``, ``failed`` or ``pending``; in a ``pruned`` trial, a stage without a result is ``pruned``.

    Takes no lease, since it must not hinder a stage that starts.
    """
    states = {}
    for name, key in trial.stages.items():
        run = RunDir(root, key)
        if (run.path / "result.json").exists():
            states[name] = "done"
        elif pruned:
            states[name] = "pruned"
        else:
            states[name] = "pending" if run.failure() is None else "failed"
    return states


def params(root: Path, sweep: SweepRecord, trial: TrialRecord) -> dict[str, str]:
    """The trial's configuration by dotted path: the axes first, then the fields that differ from their defaults.

    An axis over several fields gives a parameter for each field, because MLflow accepts no comma in a name.
    """
    fields: dict[str, str] = {path: _text(value) for axis, value in trial.axes.items() for path in axis_paths(axis)}
    fields |= {"method": trial.method, "seed": str(trial.seed), "tier": sweep.tier}
    for name, key in trial.stages.items():
        run = RunDir(root, key)
        if not (run.path / "config.yaml").exists():
            continue
        spec = run.config()
        shared = {"model": spec.model, "data": spec.data, "noise": spec.noise}
        for part, model in {**shared, f"stages.{name}": spec.stage}.items():
            for path, value in _flat(model.model_dump(mode="json", exclude_defaults=True), part):
                fields.setdefault(path, _text(value))
    return dict(list(fields.items())[:MAX_PARAMS])


def tags(root: Path, sweep: SweepRecord, trial: TrialRecord) -> dict[str, str]:
    """The origin of the trial's numbers: sweep, keys, and the devices and versions of its finished stages."""
    values = {"umd_bench.sweep": sweep.name, "umd_bench.tier": sweep.tier}
    made_with: dict[str, list[str]] = {}
    for name, key in trial.stages.items():
        values[f"umd_bench.key.{name}"] = key
        result = RunDir(root, key).result()
        if result is not None:
            for field in ("umd_bench", "torch", "commit", "device", "device_name"):
                made_with.setdefault(field, []).append(_text(result["environment"].get(field)))
            made_with.setdefault("data_digest", []).append(result["data"]["digest"])
            made_with.setdefault("exact", []).append(_text(result["exact"]))
    return values | {f"umd_bench.{field}": " or ".join(dict.fromkeys(seen)) for field, seen in made_with.items()}


def stage_points(root: Path, name: str, key: str) -> list[Point]:
    """The metrics of a finished stage, and its curves over images seen, with at most ``CURVE_POINTS`` points per curve.

    Empty if the stage has no result.
    """
    run = RunDir(root, key)
    result, spec = run.result(), run.config()
    if result is None:
        return []
    series: dict[str, dict[int, Point]] = {}
    finished = 0
    for event in run.events():
        at = int(event.get("time", 0) * 1000)
        finished = max(finished, at)
        if event.get("event") == "metrics":
            for metric, value in event.items():
                if metric not in _NO_CURVE and isinstance(value, int | float):
                    # A later attempt that trains on the same images again overwrites the point.
                    series.setdefault(metric, {})[event["nimg"]] = Point(f"{name}/{metric}", float(value), event["nimg"], at)
    end = spec.stage.nimg if isinstance(spec.stage, WeightsStage) else spec.parent_nimg or 0
    points = [point for curve in series.values() for point in _thinned([curve[nimg] for nimg in sorted(curve)])]
    # A final metric with the name of a curve is left out, since it would coincide with the curve's last point.
    final = {k: v for k, v in result["metrics"].items() if k not in series}
    return points + [Point(f"{name}/{metric}", float(value), end, finished) for metric, value in sorted(final.items())]


def started_ms(root: Path, trial: TrialRecord) -> int | None:
    """When the first stage of the trial began, in milliseconds since 1970; None if no stage has begun."""
    times = [next((e["time"] for e in RunDir(root, key).events() if "time" in e), None) for key in trial.stages.values()]
    known = [time for time in times if time is not None]
    return int(min(known) * 1000) if known else None


def ended_ms(root: Path, trial: TrialRecord) -> int | None:
    """The time of the trial's last event, in milliseconds since 1970; None if there is none."""
    times = [event["time"] for key in trial.stages.values() for event in RunDir(root, key).events() if "time" in event]
    return int(max(times) * 1000) if times else None


def _thinned(points: list[Point]) -> list[Point]:
    if len(points) <= CURVE_POINTS:
        return points
    last = len(points) - 1
    return [points[round(i * last / (CURVE_POINTS - 1))] for i in range(CURVE_POINTS)]


def _flat(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for name, child in value.items():
            yield from _flat(child, f"{path}.{name}")
    else:
        yield path, value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
