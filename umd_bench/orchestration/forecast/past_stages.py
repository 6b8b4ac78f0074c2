"""The costs of finished stages: the basis of a forecast."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from umd_bench.config.errors import UserError
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.orchestration.forecast.work_units import Kind, kind_of, network_size, work_of, work_per_image
from umd_bench.store import RunDir
from umd_bench.store.files import read_json

SINGLE_STAGE_FACTOR = 2.0  # a forecast from a single finished stage is assumed to be right within this factor
# Networks are similar if their work per image differs by at most this factor. Much smaller ones take longer per unit of work.
SIMILAR_SIZE_FACTOR = 100.0
MAX_READ = 300  # finished stages, the newest first


class Cost(NamedTuple):
    """Seconds on devices, their lower and upper bound, and bytes on disk."""

    seconds: float
    low: float
    high: float
    bytes_on_disk: float


class _Finished(NamedTuple):
    key: str
    work_per_image: float
    seconds_per_work: float
    bytes_per_network_size: float


class PastStages:
    """The cost of finished stages of some kinds, per unit of work."""

    def __init__(self, root: Path, kinds: Iterable[str], data_root: Path | None) -> None:
        self._data_root = data_root
        self._finished: dict[Kind, list[_Finished]] = {}
        self._similar: dict[tuple[Kind, float], list[_Finished]] = {}
        for spec, result, size in _results(root, kinds):
            try:
                seconds, work = device_seconds(RunDir(root, spec.key), result), work_of(spec, data_root)
                per_image = work_per_image(spec, data_root)
            except UserError:  # its data set is no longer known here
                continue
            if seconds and work:
                finished = _Finished(spec.key, per_image, seconds / work, size / network_size(spec))
                self._finished.setdefault(kind_of(spec), []).append(finished)

    def keys_of_similar(self, spec: StageSpec) -> list[str]:
        """The keys of the finished stages of the same kind with a network of a similar size."""
        return [stage.key for stage in self._similar_to(spec)]

    def cost(self, spec: StageSpec, work: float) -> Cost | None:
        """The cost of ``work`` units of the stage, from similar finished stages; None if there are none.

        The bounds are the 10th and 90th percentile of their seconds per unit of work. If there is only one such stage, they are
        ``SINGLE_STAGE_FACTOR`` below and above its cost.
        """
        similar = self._similar_to(spec)
        if not similar:
            return None
        rates = [stage.seconds_per_work for stage in similar]
        low = float(np.quantile(rates, 0.1)) if len(rates) > 1 else rates[0] / SINGLE_STAGE_FACTOR
        high = float(np.quantile(rates, 0.9)) if len(rates) > 1 else rates[0] * SINGLE_STAGE_FACTOR
        size = float(np.median([stage.bytes_per_network_size for stage in similar])) * network_size(spec)
        return Cost(work * math.fsum(rates) / len(rates), work * low, work * high, size)

    def _similar_to(self, spec: StageSpec) -> list[_Finished]:
        kind, per_image = kind_of(spec), work_per_image(spec, self._data_root)
        if (kind, per_image) not in self._similar:
            self._similar[kind, per_image] = [
                stage
                for stage in self._finished.get(kind, [])
                if stage.work_per_image / SIMILAR_SIZE_FACTOR <= per_image <= stage.work_per_image * SIMILAR_SIZE_FACTOR
            ]
        return self._similar[kind, per_image]


def device_seconds(run: RunDir, result: dict[str, Any]) -> float:
    """Seconds of all attempts of a finished stage, each multiplied by its number of devices.

    The result has the seconds of the last attempt only. An earlier attempt counts from its first to its last event.
    """
    last = float(result.get("cost", {}).get("seconds") or 0)
    total = last * int(result.get("environment", {}).get("world_size", 1))
    for number in range(1, result.get("attempts", 1)):
        times = [event["time"] for event in run.events(number) if "time" in event]
        total += (max(times) - min(times)) * devices_of(run, number) if times else 0
    return total


def devices_of(run: RunDir, attempt: int) -> int:
    """The number of devices of an attempt; 1 if it ended before it wrote its environment."""
    environment = read_json(run.attempt_path(attempt) / "environment.json")
    return 1 if environment is None else int(environment.get("world_size", 1))


def _results(root: Path, kinds: Iterable[str]) -> Iterator[tuple[StageSpec, dict[str, Any], float]]:
    """Spec, result and bytes on disk of finished stages of these kinds, the newest first."""
    paths = sorted((root / "stages").glob("*/result.json"), key=lambda path: -path.stat().st_mtime)
    wanted = set(kinds)
    for path in paths[:MAX_READ] if wanted else []:
        try:
            result = json.loads(path.read_text())
            if result.get("kind") not in wanted:
                continue
            spec = RunDir(root, path.parent.name).config()
        except (OSError, ValueError, UserError):  # written by another version; a plan must not fail because of it
            continue
        size = sum(file.stat().st_size for part in ("snapshots", "artifacts") for file in (path.parent / part).glob("*"))
        yield spec, result, float(size)
