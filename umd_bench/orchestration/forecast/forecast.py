"""What a sweep will cost, from what finished stages like its own have cost.

A stage's work is counted in units in which all stages of its kind are alike: FLOPs per image x images for training, and for
what is evaluated the size of the network x model calls x images. Seconds per unit come from finished stages of the same kind,
on the same data set for probes, whose networks are of about the size: a small one is slow for what it computes. The interval
goes from the fastest tenth of them to the slowest; one alone is taken to be right within a factor of two. A stage that was
resumed took what all of its attempts took, and one on several devices takes the time of each. Where none like it has finished a
short measurement of that shape serves (measuring.py); where there is none either, the forecast says that it has no basis.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from umd_bench.config.errors import UserError
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import ImportStage, TrainStage
from umd_bench.data.datasets import data_facts
from umd_bench.engine.networks.flops import flops_per_image
from umd_bench.orchestration.forecast.pilot import Measured
from umd_bench.orchestration.graph import Node
from umd_bench.store import RunDir, StageState
from umd_bench.store.files import read_json

ALONE = 2.0  # the factor within which a single past stage is taken to be right
BRIEF = 1.5  # and a measurement, which knows nothing of checkpoints and of what else the machine will do
UNSEEN = 3.0  # how much longer an evaluation may take of which only the images were measured, and no read-out or score
FAR = 100.0  # times larger or smaller a unit of work must not be than the one whose seconds it is taken to need
MOST_PAST = 300  # newest finished stages that are read
Kind = tuple[str, str]
Shape = tuple[object, ...]

_UNITS = ((3600, "hours"), (60, "minutes"))


@dataclass(frozen=True)
class Forecast:
    """Seconds of devices and bytes on disk for the stages ``keys``; ``without_basis`` counts those that nothing is known of, by
    their kind. ``low`` and ``high`` bound the seconds; ``stages`` is how many the keys stand for. ``past`` is how many finished
    stages were read, ``measured`` how many of the stages rest on a measurement instead."""

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
        """For programs: seconds and bytes as numbers, and what they rest on."""
        return {name: value for name, value in asdict(self).items() if name != "keys"}

    def lines(self, workers: int, side: str = "worker", *, measured: bool = False) -> list[str]:
        """For people; ``side`` is what there are ``workers`` of at a time, ``measured`` whether a measurement was asked for."""
        lines = []
        if self.keys:
            sources = [f"from {self.past} past stages"] if self.past else []
            sources += [f"{self.measured} of them measured"] if self.measured else []
            lines.append(
                f"forecast: {device_time(self.seconds, self.low, self.high)} "
                f"for {self.stages} stages ({', '.join(sources)}), {self.bytes_on_disk / 2**20:,.0f} MiB on disk; "
                f"{_count(self.waves, 'wave')} on {_count(workers, side)}"
            )
        if self.without_basis:
            kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(self.without_basis.items()))
            advice = "" if measured else "; `umd-bench plan FILE --measure` runs a little of each to tell"
            lines.append(f"forecast: no basis for {kinds}: none of the kind and of about the size has finished here{advice}")
        return lines


class _Finished(NamedTuple):
    """A finished stage: the size of its unit of work, what a unit took in seconds of devices, bytes on disk for its network."""

    key: str
    unit: float
    rate: float
    size: float


class _Past:
    """What finished stages of these kinds took, for each unit of their work."""

    def __init__(self, root: Path, kinds: Iterable[str], data_root: Path | None) -> None:
        self._data_root = data_root
        self._found: dict[Kind, list[_Finished]] = {}
        self._like: dict[tuple[Kind, float], list[_Finished]] = {}
        for spec, result, size in _past(root, kinds):
            try:
                seconds, work = device_seconds(RunDir(root, spec.key), result), _work(spec, data_root)
                unit = _unit(spec, data_root)
            except UserError:  # its data set is not known here any more
                continue
            if seconds and work:
                self._found.setdefault(_kind(spec), []).append(_Finished(spec.key, unit, seconds / work, size / _network(spec)))

    def like(self, spec: StageSpec) -> list[_Finished]:
        """Those of the stage's kind whose network is of about the size."""
        kind, unit = _kind(spec), _unit(spec, self._data_root)
        if (kind, unit) not in self._like:
            near = [one for one in self._found.get(kind, []) if one.unit / FAR <= unit <= one.unit * FAR]
            self._like[kind, unit] = near
        return self._like[kind, unit]

    def cost(self, spec: StageSpec, work: float) -> Cost | None:
        """What so much work of the stage's kind costs; None where none like it has finished."""
        like = self.like(spec)
        if not like:
            return None
        past = [one.rate for one in like]
        low = float(np.quantile(past, 0.1)) if len(past) > 1 else past[0] / ALONE
        high = float(np.quantile(past, 0.9)) if len(past) > 1 else past[0] * ALONE
        size = float(np.median([one.size for one in like])) * _network(spec)
        return Cost(work * math.fsum(past) / len(past), work * low, work * high, size)


class Cost(NamedTuple):
    """Seconds of devices, their bounds, and bytes, of one stage."""

    seconds: float
    low: float
    high: float
    bytes_on_disk: float


def without_past(
    root: Path, nodes: dict[str, Node], *, copies: float | None = None, data_root: Path | None = None
) -> list[Node]:
    """Of the stages that :func:`forecast` would count, one of each shape of which nothing is known."""
    todo = _todo(nodes, copies)
    past = _Past(root, {node.spec.kind for node in todo}, data_root)
    found: dict[Shape, Node] = {}
    for node in todo:
        if past.cost(node.spec, 1.0) is None and not isinstance(node.spec.stage, ImportStage):  # which is reading a file
            found.setdefault(_shape(node.spec, data_root), node)
    return list(found.values())


def forecast(
    root: Path,
    nodes: dict[str, Node],
    workers: int,
    *,
    copies: float | None = None,
    data_root: Path | None = None,
    pack: int = 1,
    measured: dict[str, Measured] | None = None,
) -> Forecast:
    """What the nodes without a result will cost, ``workers`` jobs of ``pack`` stages each at a time. With ``copies`` they stand
    for others like them, as in a search: so many times all of them. ``measured`` serves where there is no past.
    """
    todo = _todo(nodes, copies)
    copies = 1.0 if copies is None else copies
    past = _Past(root, {node.spec.kind for node in todo}, data_root)
    brief = _brief(nodes, measured or {}, data_root)
    known, total, n_measured = [], Cost(0.0, 0.0, 0.0, 0.0), 0
    unknown: dict[str, float] = {}
    used: set[str] = set()
    for node in todo:
        work = _work(node.spec, data_root)
        cost = past.cost(node.spec, work)
        if cost is not None:
            used.update(one.key for one in past.like(node.spec))
        elif (found := brief.get(_shape(node.spec, data_root)) or brief.get(_kind(node.spec))) is not None:
            cost = Cost(found.seconds * work, found.low * work, found.high * work, found.bytes_on_disk * _network(node.spec))
            n_measured += 1
        else:
            unknown[node.spec.kind] = unknown.get(node.spec.kind, 0) + copies
            continue
        known.append(node.key)
        total = Cost(*(a + b * copies for a, b in zip(total, cost, strict=True)))
    return Forecast(
        tuple(known),
        *total,
        _waves(nodes, todo, workers, copies, pack),
        {kind: round(n) for kind, n in unknown.items()},
        round(len(known) * copies),
        past=len(used),
        measured=round(n_measured * copies),
    )


def _todo(nodes: dict[str, Node], copies: float | None) -> list[Node]:
    return [node for node in nodes.values() if copies is not None or node.state is not StageState.DONE]


def _brief(nodes: dict[str, Node], measured: dict[str, Measured], data_root: Path | None) -> dict[Shape, Cost]:
    """Cost of a unit of work by shape, and by kind for shapes that were not reached: the mean and the widest bounds."""
    found: dict[Shape, list[Cost]] = {}
    for key, one in measured.items():
        if not one.seconds:
            continue
        spec = nodes[key].spec
        work = _work(spec, data_root)
        mean = math.fsum(one.seconds) / len(one.seconds) / work
        low, high = min(one.seconds) / work / BRIEF, max(one.seconds) / work * (BRIEF if one.whole else UNSEEN)
        for shape in (_shape(spec, data_root), _kind(spec)):
            found.setdefault(shape, []).append(Cost(mean, low, high, one.bytes_on_disk / _network(spec)))
    return {
        shape: Cost(
            math.fsum(cost.seconds for cost in costs) / len(costs),
            min(cost.low for cost in costs),
            max(cost.high for cost in costs),
            max(cost.bytes_on_disk for cost in costs),
        )
        for shape, costs in found.items()
    }


def device_seconds(run: RunDir, result: dict[str, Any]) -> float:
    """What a stage took in all: its result counts the last attempt alone, those before it took as long as their events say.

    Each device of an attempt took all of its time.
    """
    last = float(result.get("cost", {}).get("seconds") or 0)
    total = last * int(result.get("environment", {}).get("world_size", 1))
    for number in range(1, result.get("attempts", 1)):
        times = [event["time"] for event in run.events(number) if "time" in event]
        total += (max(times) - min(times)) * devices_of(run, number) if times else 0
    return total


def devices_of(run: RunDir, attempt: int) -> int:
    """How many the attempt took; one that ended before it said so took one."""
    here = read_json(run.attempt_path(attempt) / "environment.json")
    return 1 if here is None else int(here.get("world_size", 1))


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


def _kind(spec: StageSpec) -> Kind:
    """Stages whose cost per unit of work is alike: of one kind; a probe's also depends on the data set."""
    return spec.kind, spec.input_data.name if spec.kind == "probe" else ""


def _shape(spec: StageSpec, data_root: Path | None) -> Shape:
    """Stages for which one measurement serves, however long they are and whatever their seed."""
    here = (*_kind(spec), spec.resources.threads, spec.resources.device, _network(spec))
    match spec.stage:
        case TrainStage() as train:
            return (*here, _work(spec, data_root) / train.nimg, train.batch, train.precision)
        case GenerateStage() as generate:
            return (*here, generate.sampler, generate.steps, generate.batch, generate.all_extractors, generate.precision)
        case ProbeStage() as probe:
            return (*here, probe.shots, probe.draws, probe.knn, repr(probe.linear), repr(probe.ridge))
    return here


def _unit(spec: StageSpec, data_root: Path | None) -> float:
    """How large one unit of the stage's work is: FLOPs an image where it trains, else the network."""
    return _work(spec, data_root) / spec.stage.nimg if isinstance(spec.stage, TrainStage) else _network(spec)


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


def _waves(nodes: dict[str, Node], todo: list[Node], workers: int, copies: float, pack: int) -> int:
    """How often all workers start a stage or a job of several, when each generation of stages waits for the one before."""
    generations: dict[tuple[int, int], float] = {}
    for node in todo:
        depth, parent = 0, nodes.get(node.spec.parent_key or "")
        while parent is not None and parent.state is not StageState.DONE:
            depth, parent = depth + 1, nodes.get(parent.spec.parent_key or "")
        at = depth, pack if node.spec.devices == 1 else 1
        generations[at] = generations.get(at, 0) + copies
    jobs: dict[int, int] = {}
    for (depth, packed), count in generations.items():
        jobs[depth] = jobs.get(depth, 0) + math.ceil(count / packed)
    return sum(math.ceil(count / workers) for count in jobs.values())


def _count(n: int, what: str) -> str:
    """``2 jobs of 3 stages``, of "job of 3 stages"."""
    name, space, rest = what.partition(" ")
    return f"{n} {name}{'' if n == 1 else 's'}{space}{rest}"


def device_time(seconds: float, *interval: float) -> str:
    """For people: ``7.06 device-hours (0.559 to 17.2)``, in minutes below two hours and in seconds below two minutes."""
    unit, name = next(((unit, name) for unit, name in _UNITS if seconds >= 2 * unit), (1, "seconds"))
    words = [f"{value / unit:.3g}" for value in (seconds, *interval)]
    return f"{words[0]} device-{name}" + (f" ({words[1]} to {words[2]})" if interval else "")
