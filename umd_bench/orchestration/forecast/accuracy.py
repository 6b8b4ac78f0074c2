"""How far off a forecast was: it is kept beside the sweep's record, and compared once with what its stages took."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from umd_bench.orchestration.forecast.forecast import Forecast, device_seconds, device_time, devices_of
from umd_bench.store import RunDir, read_sweep, sweep_dir
from umd_bench.store.files import read_json, write_json


def keep_forecast(root: Path, sweep: str, made: Forecast) -> None:
    """Write it beside the sweep's record, to be compared with what came; one without a basis is not kept."""
    if made.keys and not made.without_basis:
        record = {"keys": list(made.keys), "seconds": made.seconds, "low": made.low, "high": made.high}
        write_json(sweep_dir(root, sweep) / "forecast.json", record)


def forecast_error(root: Path, sweep: str) -> str | None:
    """How the kept forecast compares with what its stages took, in one line, noted beside it; None until all are done."""
    path = sweep_dir(root, sweep) / "forecast.json"
    kept = read_json(path)
    if kept is None or "took" in kept:
        return None
    runs = [RunDir(root, key) for key in kept["keys"]]
    took = [device_seconds(run, result) for run in runs if (result := run.result()) is not None]
    if len(took) < len(runs):
        return None
    return _compare(path, kept, math.fsum(took))


def search_forecast_error(root: Path, sweep: str) -> str | None:
    """:func:`forecast_error` of a search that is complete: of whatever stages it came to since the forecast was kept.

    What was pruned counts with the time that it was at work, of which the forecast, made of whole trials, knew nothing.
    """
    path = sweep_dir(root, sweep) / "forecast.json"
    kept = read_json(path)
    if kept is None or "took" in kept:
        return None
    since = path.stat().st_mtime
    keys = {key for trial in read_sweep(root, sweep).trials for key in trial.stages.values()}
    return _compare(path, kept, math.fsum(_seconds_since(RunDir(root, key), since) for key in keys))


def _seconds_since(run: RunDir, since: float) -> float:
    """Seconds of devices of the attempts that began since then: until each one's last event."""
    begun: dict[int, list[float]] = {}
    for event in run.events():
        if event["time"] >= since:
            begun.setdefault(event["attempt"], []).append(event["time"])
    return math.fsum((times[-1] - times[0]) * devices_of(run, number) for number, times in begun.items())


def _compare(path: Path, kept: dict[str, Any], total: float) -> str | None:
    """Note beside the forecast what it came to, and say how far off it was."""
    error = total / kept["seconds"] - 1
    write_json(path, {**kept, "took": total, "error": error})
    inside = "inside" if kept["low"] <= total <= kept["high"] else "outside"
    return (
        f"forecast was {device_time(kept['seconds'], kept['low'], kept['high'])}, "
        f"it took {device_time(total)}: {error:+.0%}, {inside} the interval"
    )
