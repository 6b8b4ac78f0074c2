"""What a sweep will cost, from what finished stages like its own have cost; and, afterwards, how far off that was.

A stage's work is counted in units in which all stages of its kind are alike: FLOPs per image x images for training, and for
what is evaluated the size of the network x model calls x images. Seconds per unit come from finished stages of the same kind,
on the same data set for probes. The interval goes from the fastest tenth of them to the slowest; one alone is taken to be
right within a factor of two. A stage that was resumed took what all of its attempts took. Where no stage of a kind has finished
there is no basis, and the forecast says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from umd_bench.config.errors import UserError
from umd_bench.config.generating import GenerateStage
from umd_bench.config.stage import StageSpec
from umd_bench.config.training import TrainStage
from umd_bench.data.sources import data_facts
from umd_bench.engine.flops import flops_per_image
from umd_bench.orchestration.plan import Node
from umd_bench.store import RunDir, StageState, read_sweep, sweep_dir
from umd_bench.store.files import read_json, write_json

ALONE = 2.0  # the factor within which a single past stage is taken to be right
MOST_PAST = 300  # newest finished stages that are read
Kind = tuple[str, str]


@dataclass(frozen=True)
class Forecast:
    """Seconds of devices and bytes on disk for the stages ``keys``; ``without_basis`` counts those that nothing is known of, by
    their kind. ``low`` and ``high`` bound the seconds; ``stages`` is how many the keys stand for."""

    keys: tuple[str, ...]
    seconds: float
    low: float
    high: float
    bytes_on_disk: float
    waves: int
    without_basis: dict[str, int]
    stages: int

    def lines(self, workers: int) -> list[str]:
        """For people."""
        lines = []
        if self.keys:
            lines.append(
                f"forecast: {_hours(self.seconds)} device-hours ({_hours(self.low)} to {_hours(self.high)}) "
                f"for {self.stages} stages, {self.bytes_on_disk / 2**20:,.0f} MiB on disk; "
                f"{self.waves} waves on {workers} workers"
            )
        if self.without_basis:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.without_basis.items()))
            lines.append(f"forecast: no basis for {kinds}: no stage of the kind has finished here")
        return lines


def forecast(
    root: Path, nodes: dict[str, Node], workers: int, *, copies: float | None = None, data_root: Path | None = None
) -> Forecast:
    """What the nodes without a result will cost. With ``copies`` they stand for others like them, as in a search: so many times
    all of them.
    """
    todo = [node for node in nodes.values() if copies is not None or node.state is not StageState.DONE]
    copies = 1.0 if copies is None else copies
    rates: dict[Kind, list[float]] = {}
    sizes: dict[Kind, list[float]] = {}
    for spec, result, size in _past(root, {node.spec.kind for node in todo}):
        try:
            seconds, work = _seconds(RunDir(root, spec.key), result), _work(spec, data_root)
        except UserError:  # its data set is not known here any more
            continue
        if seconds and work:
            rates.setdefault(_shape(spec), []).append(seconds / work)
            sizes.setdefault(_shape(spec), []).append(size / _network(spec))
    known, seconds, low, high, size = [], 0.0, 0.0, 0.0, 0.0
    unknown: dict[str, float] = {}
    for node in todo:
        past = rates.get(_shape(node.spec))
        if past is None:
            unknown[node.spec.kind] = unknown.get(node.spec.kind, 0) + copies
            continue
        known.append(node.key)
        work = _work(node.spec, data_root) * copies
        seconds += work * math.fsum(past) / len(past)
        low += work * (float(np.quantile(past, 0.1)) if len(past) > 1 else past[0] / ALONE)
        high += work * (float(np.quantile(past, 0.9)) if len(past) > 1 else past[0] * ALONE)
        size += float(np.median(sizes[_shape(node.spec)])) * _network(node.spec) * copies
    return Forecast(
        tuple(known),
        seconds,
        low,
        high,
        size,
        _waves(nodes, todo, workers, copies),
        {kind: round(n) for kind, n in unknown.items()},
        round(len(known) * copies),
    )


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
    took = [_seconds(run, result) for run in runs if (result := run.result()) is not None]
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
    """Seconds of the attempts that began since then: until each one's last event."""
    begun: dict[int, list[float]] = {}
    for event in run.events():
        if event["time"] >= since:
            begun.setdefault(event["attempt"], []).append(event["time"])
    return math.fsum(times[-1] - times[0] for times in begun.values())


def _compare(path: Path, kept: dict[str, Any], total: float) -> str | None:
    """Note beside the forecast what it came to, and say how far off it was."""
    error = total / kept["seconds"] - 1
    write_json(path, {**kept, "took": total, "error": error})
    inside = "inside" if kept["low"] <= total <= kept["high"] else "outside"
    return (
        f"forecast was {_hours(kept['seconds'])} device-hours ({_hours(kept['low'])} to {_hours(kept['high'])}), "
        f"it took {_hours(total)}: {error:+.0%}, {inside} the interval"
    )


def _seconds(run: RunDir, result: dict[str, Any]) -> float:
    """What a stage took in all: its result counts the last attempt alone, those before it took as long as their events say."""
    total = float(result.get("cost", {}).get("seconds") or 0)
    for number in range(1, result.get("attempts", 1)):
        times = [event["time"] for event in run.events(number) if "time" in event]
        total += max(times) - min(times) if times else 0
    return total


def _past(root: Path, kinds: Iterable[str]) -> Iterator[tuple[StageSpec, dict[str, Any], float]]:
    """Finished stages of these kinds, newest last read first: what they were, what they took, their bytes on disk."""
    paths = sorted((root / "stages").glob("*/result.json"), key=lambda path: -path.stat().st_mtime)
    wanted = set(kinds)
    for path in paths[:MOST_PAST] if wanted else []:
        try:
            result = json.loads(path.read_text())
            if result.get("kind") not in wanted:
                continue
            spec = RunDir(root, path.parent.name).config()
        except (OSError, ValueError, UserError):  # of another version: no basis, and no reason to refuse a plan
            continue
        size = sum(file.stat().st_size for part in ("snapshots", "artifacts") for file in (path.parent / part).glob("*"))
        yield spec, result, float(size)


def _shape(spec: StageSpec) -> Kind:
    """Stages whose cost per unit of work is alike: of one kind; a probe's also depends on the data set."""
    return spec.kind, spec.reads.name if spec.kind == "probe" else ""


def _network(spec: StageSpec) -> float:
    """Grows like the network's parameters."""
    model = spec.model
    return float(model.width) ** 2 * (model.depth + model.decoder_depth)


def _work(spec: StageSpec, data_root: Path | None) -> float:
    match spec.stage:
        case TrainStage() as train:
            facts = data_facts(spec.data, root=data_root)
            classes = facts.classes if train.labels else 0
            return flops_per_image(spec.model, train, size=facts.size, channels=facts.channels, classes=classes) * train.nimg
        case GenerateStage() as generate:
            guided = 1 if generate.cfg_scale == 1 else 2
            return _network(spec) * generate.n * generate.sampling_seeds * (generate.steps + 1) * guided
    return _network(spec)


def _waves(nodes: dict[str, Node], todo: list[Node], workers: int, copies: float) -> int:
    """How often all workers start a stage, when each generation of stages waits for the one before."""
    generations: dict[int, float] = {}
    for node in todo:
        depth, parent = 0, nodes.get(node.spec.parent_key or "")
        while parent is not None and parent.state is not StageState.DONE:
            depth, parent = depth + 1, nodes.get(parent.spec.parent_key or "")
        generations[depth] = generations.get(depth, 0) + copies
    return sum(math.ceil(count / workers) for count in generations.values())


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.3g}"
