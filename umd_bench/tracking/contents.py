"""What one trial becomes in a tracking store: parameters, tags, metrics and files, as plain values read from run directories.

Everything is a function of the run directories, times included: sending it twice sends the same, and the store can drop
what it has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umd_bench.config.trial.train_stage import WeightsStage
from umd_bench.store import RunDir, SweepRecord, TrialRecord

CURVE_POINTS = 100
MAX_PARAMS = 100  # one batch of the tracking store; the axes come first, so a cut never loses what was varied
_NO_CURVE = frozenset({"event", "time", "attempt", "nimg", "images_per_second"})


@dataclass(frozen=True)
class Point:
    """One value of a metric after ``step`` images; ``time_ms`` is when, in milliseconds since 1970."""

    name: str
    value: float
    step: int
    time_ms: int


def trial_tag(trial: TrialRecord) -> str:
    """The trial's name and twelve digits that change when any of its stages' keys does."""
    keys = json.dumps(trial.stages, sort_keys=True)
    return f"{trial.id}#{hashlib.sha256(keys.encode()).hexdigest()[:12]}"


def stage_states(root: Path, trial: TrialRecord, *, pruned: bool = False) -> dict[str, str]:
    """``done``, ``failed`` or ``pending`` of each stage, or ``pruned`` of what a ``pruned`` trial leaves without a result.

    Takes no lease: it must not get in the way of a starting stage.
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
    """What the trial was asked to do, by dotted path: the axes, then its fields that differ from their defaults."""
    found: dict[str, str] = {path: _text(value) for path, value in trial.axes.items()}
    found |= {"method": trial.method, "seed": str(trial.seed), "tier": sweep.tier}
    for name, key in trial.stages.items():
        run = RunDir(root, key)
        if not (run.path / "config.yaml").exists():
            continue
        spec = run.config()
        shared = {"model": spec.model, "data": spec.data, "noise": spec.noise}
        for part, model in {**shared, f"stages.{name}": spec.stage}.items():
            for path, value in _flat(model.model_dump(mode="json", exclude_defaults=True), part):
                found.setdefault(path, _text(value))
    return dict(list(found.items())[:MAX_PARAMS])


def tags(root: Path, sweep: SweepRecord, trial: TrialRecord) -> dict[str, str]:
    """Where the trial's numbers come from: sweep, keys, and the device and versions of the stages done so far."""
    found = {"umd_bench.sweep": sweep.name, "umd_bench.tier": sweep.tier}
    made_with: dict[str, list[str]] = {}
    for name, key in trial.stages.items():
        found[f"umd_bench.key.{name}"] = key
        result = RunDir(root, key).result()
        if result is not None:
            for field in ("umd_bench", "torch", "commit", "device", "device_name"):
                made_with.setdefault(field, []).append(_text(result["environment"].get(field)))
            made_with.setdefault("data_digest", []).append(result["data"]["digest"])
            made_with.setdefault("exact", []).append(_text(result["exact"]))
    return found | {f"umd_bench.{field}": " or ".join(dict.fromkeys(values)) for field, values in made_with.items()}


def stage_points(root: Path, name: str, key: str) -> list[Point]:
    """The metrics of a stage that is done, and its curves, each of at most ``CURVE_POINTS`` points over images seen."""
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
                    # a later attempt that went over the same images has the last word
                    series.setdefault(metric, {})[event["nimg"]] = Point(f"{name}/{metric}", float(value), event["nimg"], at)
    end = spec.stage.nimg if isinstance(spec.stage, WeightsStage) else spec.parent_nimg or 0
    points = [point for curve in series.values() for point in _thinned([curve[nimg] for nimg in sorted(curve)])]
    # a final value that is named like a curve would stand on the curve's last point
    final = {k: v for k, v in result["metrics"].items() if k not in series}
    return points + [Point(f"{name}/{metric}", float(value), end, finished) for metric, value in sorted(final.items())]


def started_ms(root: Path, trial: TrialRecord) -> int | None:
    """When the first of the trial's stages began, or None if none has."""
    times = [next((e["time"] for e in RunDir(root, key).events() if "time" in e), None) for key in trial.stages.values()]
    known = [time for time in times if time is not None]
    return int(min(known) * 1000) if known else None


def ended_ms(root: Path, trial: TrialRecord) -> int | None:
    """When the last thing happened to the trial, or None if nothing did."""
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
