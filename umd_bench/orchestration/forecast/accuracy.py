"""Compares a sweep's forecast with the seconds that its stages took; the forecast is saved next to the sweep's record."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from umd_bench.orchestration.forecast.forecast import Forecast, device_time
from umd_bench.orchestration.forecast.past_stages import device_seconds, devices_of
from umd_bench.store import RunDir, read_sweep, sweep_dir
from umd_bench.store.files import read_json, write_json


def save_forecast(root: Path, sweep: str, forecast: Forecast) -> None:
    """Save the forecast for the comparison, unless stages are missing from it."""
    if forecast.keys and not forecast.without_basis:
        record = {
            "keys": list(forecast.keys),
            "seconds": forecast.seconds,
            "low": forecast.low,
            "high": forecast.high,
        }
        write_json(_file(root, sweep), record)


def forecast_error(root: Path, sweep: str) -> str | None:
    """One line that compares the saved forecast with the seconds that its stages took; the comparison is saved too.

    None if there is no forecast, if it has been compared before, or while a stage has no result.
    """
    saved = _not_compared(root, sweep)
    if saved is None:
        return None
    runs = [RunDir(root, key) for key in saved["keys"]]
    took = [device_seconds(run, result) for run in runs if (result := run.result()) is not None]
    if len(took) < len(runs):
        return None
    return _compare(_file(root, sweep), saved, math.fsum(took))


def search_forecast_error(root: Path, sweep: str) -> str | None:
    """:func:`forecast_error` of a finished search, whose stages are known only afterwards.

    It counts every attempt that a stage of the search made after the forecast, also in pruned trials. The forecast assumed that
    every trial runs to its end.
    """
    saved = _not_compared(root, sweep)
    if saved is None:
        return None
    path = _file(root, sweep)
    since = path.stat().st_mtime
    keys = {key for trial in read_sweep(root, sweep).trials for key in trial.stages.values()}
    return _compare(path, saved, math.fsum(_device_seconds_since(RunDir(root, key), since) for key in keys))


def _file(root: Path, sweep: str) -> Path:
    return sweep_dir(root, sweep) / "forecast.json"


def _not_compared(root: Path, sweep: str) -> dict[str, Any] | None:
    saved = read_json(_file(root, sweep))
    return None if saved is None or "took" in saved else dict(saved)


def _device_seconds_since(run: RunDir, since: float) -> float:
    """The sum over attempts of the seconds from the first to the last event after ``since``, times the attempt's devices."""
    times_of: dict[int, list[float]] = {}
    for event in run.events():
        if event["time"] >= since:
            times_of.setdefault(event["attempt"], []).append(event["time"])
    return math.fsum((times[-1] - times[0]) * devices_of(run, number) for number, times in times_of.items())


def _compare(path: Path, saved: dict[str, Any], took: float) -> str:
    error = took / saved["seconds"] - 1
    write_json(path, {**saved, "took": took, "error": error})
    inside = "inside" if saved["low"] <= took <= saved["high"] else "outside"
    return (
        f"the forecast was {device_time(saved['seconds'], saved['low'], saved['high'])}, "
        f"the stages took {device_time(took)}: {error:+.0%}, {inside} the interval"
    )
