"""The cost of a sweep, predicted from similar finished stages or, if there are none, from measurements.

A stage's cost is its work (:mod:`.work_units`) times the seconds per unit of work of finished stages (:mod:`.past_stages`). If
no similar stage has finished, the forecast uses a short measurement of a stage of its shape (:mod:`.pilot`). Without a
measurement it leaves the stage out, and counts it as a stage without a basis.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from umd_bench.config.trial.train_stage import ImportStage
from umd_bench.orchestration.forecast.past_stages import Cost, PastStages
from umd_bench.orchestration.forecast.pilot import PilotMeasurement
from umd_bench.orchestration.forecast.work_units import Shape, kind_of, network_size, shape_of, work_of
from umd_bench.orchestration.graph import Node
from umd_bench.store import StageState

PILOT_FACTOR = 1.5  # a measurement is assumed to be right within this factor; it includes no checkpoints and no other load
PARTIAL_PILOT_FACTOR = 3.0  # upper factor if only the images were measured, and no probe or score was computed

_UNITS = ((3600, "hours"), (60, "minutes"))


@dataclass(frozen=True)
class Forecast:
    """The cost of the stages ``keys``: seconds on devices, with bounds ``low`` and ``high``, and bytes on disk.

    ``stages`` is the number of stages; in a search each of ``keys`` counts for several. ``waves`` is the number of rounds if
    all workers start their jobs together. ``without_basis`` counts, by kind, the stages left out for lack of similar stages and
    measurements. ``past`` is the number of finished stages used, ``measured`` the number of stages whose cost comes from a
    measurement.
    """

    keys: tuple[str, ...]
    seconds: float
    low: float
    high: float
    bytes_on_disk: float
    waves: int
    without_basis: dict[str, int]
    stages: int
    past: int = 0
    measured: int = 0

    def facts(self) -> dict[str, Any]:
        """Every field but ``keys``, for programs."""
        return {name: value for name, value in asdict(self).items() if name != "keys"}

    def lines(self, workers: int, worker: str = "worker", *, measured: bool = False) -> list[str]:
        """The forecast for people; ``worker`` is the name of a worker, ``measured`` says whether ``--measure`` was given."""
        lines = []
        if self.keys:
            sources = [f"from {_count(self.past, 'finished stage')}"] if self.past else []
            sources += [f"{self.measured} measured"] if self.measured else []
            lines.append(
                f"forecast: {device_time(self.seconds, self.low, self.high)} "
                f"for {_count(self.stages, 'stage')} ({', '.join(sources)}), {self.bytes_on_disk / 2**20:,.0f} MiB on disk; "
                f"{_count(self.waves, 'wave')} on {_count(workers, worker)}"
            )
        if self.without_basis:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.without_basis.items()))
            stages = "stage" if sum(self.without_basis.values()) == 1 else "stages"
            advice = "" if measured else "; `umd-bench plan FILE --measure` measures such stages"
            lines.append(
                f"no forecast for {kinds} {stages}: this results folder has no finished stage of the same kind with a network "
                f"of similar size{advice}"
            )
        return lines


def make_forecast(
    root: Path,
    nodes: dict[str, Node],
    workers: int,
    *,
    copies: float | None = None,
    data_root: Path | None = None,
    pack: int = 1,
    measurements: dict[str, PilotMeasurement] | None = None,
) -> Forecast:
    """The cost of the nodes without a result, when ``workers`` jobs of ``pack`` stages each run at a time.

    With ``copies``, as in a search, each node, finished or not, counts as that many stages. ``measurements`` (by key) are used
    for stages that have no similar finished ones.
    """
    todo = _todo(nodes, copies)
    copies = 1.0 if copies is None else copies
    past = PastStages(root, {node.spec.kind for node in todo}, data_root)
    measured_costs = _cost_per_work(nodes, measurements or {}, data_root)
    keys, total, n_measured = [], Cost(0.0, 0.0, 0.0, 0.0), 0
    without_basis: dict[str, float] = {}
    used: set[str] = set()
    for node in todo:
        work = work_of(node.spec, data_root)
        cost = past.cost(node.spec, work)
        if cost is not None:
            used.update(past.keys_of_similar(node.spec))
        else:
            unit = measured_costs.get(shape_of(node.spec, data_root)) or measured_costs.get(kind_of(node.spec))
            if unit is None:
                without_basis[node.spec.kind] = without_basis.get(node.spec.kind, 0) + copies
                continue
            cost = Cost(unit.seconds * work, unit.low * work, unit.high * work, unit.bytes_on_disk * network_size(node.spec))
            n_measured += 1
        keys.append(node.key)
        total = Cost(*(a + b * copies for a, b in zip(total, cost, strict=True)))
    return Forecast(
        tuple(keys),
        *total,
        _waves(nodes, todo, workers, copies, pack),
        {kind: round(n) for kind, n in without_basis.items()},
        round(len(keys) * copies),
        past=len(used),
        measured=round(n_measured * copies),
    )


def without_past(
    root: Path, nodes: dict[str, Node], *, copies: float | None = None, data_root: Path | None = None
) -> list[Node]:
    """The nodes to measure: one of each shape that :func:`make_forecast` counts and that has no similar finished stage."""
    todo = _todo(nodes, copies)
    past = PastStages(root, {node.spec.kind for node in todo}, data_root)
    by_shape: dict[Shape, Node] = {}
    for node in todo:
        if past.cost(node.spec, 1.0) is None and not isinstance(node.spec.stage, ImportStage):  # an import only reads a file
            by_shape.setdefault(shape_of(node.spec, data_root), node)
    return list(by_shape.values())


def _todo(nodes: dict[str, Node], copies: float | None) -> list[Node]:
    return [node for node in nodes.values() if copies is not None or node.state is not StageState.DONE]


def _cost_per_work(
    nodes: dict[str, Node], measurements: dict[str, PilotMeasurement], data_root: Path | None
) -> dict[Shape, Cost]:
    """The cost of a unit of work by shape, and by kind for shapes that were not measured.

    The seconds are the mean of the measurements, with the widest bounds. The bytes on disk are the largest measured number, per
    unit of network size.
    """
    costs_of: dict[Shape, list[Cost]] = {}
    for key, measurement in measurements.items():
        if not measurement.seconds:
            continue
        spec = nodes[key].spec
        work = work_of(spec, data_root)
        mean = math.fsum(measurement.seconds) / len(measurement.seconds) / work
        low = min(measurement.seconds) / work / PILOT_FACTOR
        high = max(measurement.seconds) / work * (PILOT_FACTOR if measurement.whole else PARTIAL_PILOT_FACTOR)
        for shape in (shape_of(spec, data_root), kind_of(spec)):
            costs_of.setdefault(shape, []).append(Cost(mean, low, high, measurement.bytes_on_disk / network_size(spec)))
    return {
        shape: Cost(
            math.fsum(cost.seconds for cost in costs) / len(costs),
            min(cost.low for cost in costs),
            max(cost.high for cost in costs),
            max(cost.bytes_on_disk for cost in costs),
        )
        for shape, costs in costs_of.items()
    }


def _waves(nodes: dict[str, Node], todo: list[Node], workers: int, copies: float, pack: int) -> int:
    """The number of rounds if all workers start their jobs together.

    Each generation of stages waits for the generation of its parents. A job has ``pack`` stages, or one stage that uses several
    devices.
    """
    stages: dict[tuple[int, int], float] = {}  # (generation, stages of a job) -> number of stages
    for node in todo:
        depth, parent = 0, nodes.get(node.spec.parent_key or "")
        while parent is not None and parent.state is not StageState.DONE:
            depth, parent = depth + 1, nodes.get(parent.spec.parent_key or "")
        at = depth, pack if node.spec.devices == 1 else 1
        stages[at] = stages.get(at, 0) + copies
    jobs: dict[int, int] = {}
    for (depth, packed), count in stages.items():
        jobs[depth] = jobs.get(depth, 0) + math.ceil(count / packed)
    return sum(math.ceil(count / workers) for count in jobs.values())


def _count(n: int, noun: str) -> str:
    """``2 jobs of 3 stages`` from 2 and ``job of 3 stages``; ``2 finished stages`` from 2 and ``finished stage``."""
    head, of, tail = noun.partition(" of ")
    return f"{n:,} {head}{'' if n == 1 else 's'}{of}{tail}"


def device_time(seconds: float, *interval: float) -> str:
    """``7.06 device-hours (0.559 to 17.2)``; minutes below two hours, seconds below two minutes."""
    unit, name = next(((unit, name) for unit, name in _UNITS if seconds >= 2 * unit), (1, "seconds"))
    values = [f"{value / unit:.3g}" for value in (seconds, *interval)]
    return f"{values[0]} device-{name}" + (f" ({values[1]} to {values[2]})" if interval else "")
