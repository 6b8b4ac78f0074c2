"""Runs some steps or images of each requested stage, and estimates from them the time of the whole stage.

Started as a module, ``pilot_main FOLDER``, by :mod:`~umd_bench.orchestration.forecast.pilot`. The weights are random, since the
cost of an image does not depend on them. Half of the time is divided equally among the stages. In the other half, the probe and
generate stages whose estimates are short are run whole.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import Place, ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.datasets import data_facts
from umd_bench.data.open_data import open_data, source_images
from umd_bench.data.packs.pack import Pack
from umd_bench.data.vae import decoder_for
from umd_bench.engine.device import pick_device
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.families import empty_model
from umd_bench.engine.samplers import generate
from umd_bench.engine.training.loop import Stopped, train
from umd_bench.engine.training.snapshot import publish_snapshot, restore_sampled
from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.probes.probe_stage import run_probe
from umd_bench.evaluation.probes.representation import FOLDER, Representation
from umd_bench.evaluation.probes.supervised import SupervisedWeights
from umd_bench.evaluation.probes.weights import InitialWeights, SnapshotWeights, initial_weights
from umd_bench.evaluation.samples.generate_stage import run_generate, sample_labels
from umd_bench.orchestration.forecast.pilot import FINISHED, MEASUREMENTS, REQUEST, PilotMeasurement
from umd_bench.store.run import RunDir

MIN_STEPS = 4
GROUPS = 3  # the steps are dealt into groups, whose means show how much the speed varies
MAX_IMAGES = 512
MAX_ERROR = 200  # characters of an error that are reported


def main(folder: str) -> int:
    """Measure the stages of the folder's request and write the measurements there; returns the exit status."""
    path = Path(folder)
    request: dict[str, Any] = json.loads((path / REQUEST).read_text())
    data_root = Path(request["data_root"])
    stages = [[None if stage is None else _Requested(stage) for stage in pair] for pair in request["stages"]]
    share, until = request["seconds"] / 2 / len(stages), time.monotonic() + request["seconds"]
    whole_runs: list[tuple[float, Callable[[], PilotMeasurement]]] = []
    for stage, parent in stages:
        assert stage is not None
        torch.set_num_threads(stage.spec.resources.threads)
        try:
            measurement, run_whole = _measure(path / "results", stage, parent, data_root, share)
        except Exception as error:  # the other stages are still measured
            measurement, run_whole = PilotMeasurement(stage.key, error=_headline(error)), None
        _append(path, measurement)
        if run_whole is not None:
            whole_runs.append((max(measurement.seconds), run_whole))
    for estimate, run_whole in sorted(whole_runs, key=lambda item: item[0]):
        if time.monotonic() + 2 * estimate < until:
            try:
                _append(path, run_whole())
            except Exception as error:  # the measurement of a part of the stage remains
                print(_headline(error), file=sys.stderr)
    (path / FINISHED).touch()
    return 0


def _headline(error: Exception) -> str:
    """The first line of the message that is not blank, or the error's type."""
    return next((line.strip()[:MAX_ERROR] for line in str(error).splitlines() if line.strip()), type(error).__name__)


class _Requested:
    """A requested stage, and its key, which identifies the measurement."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.key, self.spec = str(fields["key"]), StageSpec.model_validate(fields["spec"])


def _append(path: Path, measurement: PilotMeasurement) -> None:
    with (path / MEASUREMENTS).open("a") as file:
        file.write(json.dumps(measurement.__dict__) + "\n")


def _measure(
    root: Path, requested: _Requested, parent: _Requested | None, data_root: Path, share: float
) -> tuple[PilotMeasurement, Callable[[], PilotMeasurement] | None]:
    """Measure a stage for ``share`` seconds; for probes and sampling, also return a function that measures the whole stage."""
    spec = requested.spec
    pack = open_data(spec.input_data, data_root)
    run = RunDir(root, requested.key)
    if isinstance(spec.stage, TrainStage):
        return _training(run, spec, spec.stage, pack, share), None
    if parent is None or spec.parent_nimg is None:
        raise UserError(f"a {spec.kind} stage cannot be measured")
    source = _random_snapshot(RunDir(root, parent.key), parent.spec, spec.parent_nimg, data_root)
    if isinstance(spec.stage, GenerateStage):
        seconds = _sampling_seconds(spec, spec.stage, source, pack, share)
    else:
        assert isinstance(spec.stage, ProbeStage)
        seconds = _feature_seconds(spec, spec.stage, source, pack, share)
    return PilotMeasurement(run.key, (seconds,)), partial(_run_whole, run, spec, source, pack)


def _training(run: RunDir, spec: StageSpec, stage: TrainStage, pack: Pack, share: float) -> PilotMeasurement:
    """Run the training loop for ``share`` seconds of steps. Each snapshot is assumed to be as large as a checkpoint."""
    resources = spec.resources.model_copy(update={"devices": 1})
    single = spec.model_copy(update={"parent_key": None, "parent_nimg": None, "resources": resources})
    run.prepare(single)
    times: list[float] = []

    def stop() -> bool:
        _synchronize()
        times.append(time.perf_counter())
        return len(times) > MIN_STEPS and times[-1] - times[0] >= share

    with run.begin() as attempt:
        try:
            train(single, pack, attempt, stop=stop)
        except Stopped:
            pass
        else:
            _synchronize()
            times.append(time.perf_counter())
        saved = max((file.stat().st_size for file in attempt.path.rglob("*.safetensors")), default=0)
    steps = [after - before for before, after in pairwise(times)]
    steps = steps[1:] if len(steps) > GROUPS else steps  # the first one includes one-time costs
    groups = [steps[group::GROUPS] for group in range(GROUPS) if steps[group::GROUPS]]
    means = [math.fsum(group) / len(group) for group in groups]
    n_snapshots = len({*stage.snapshots, stage.nimg})
    return PilotMeasurement(run.key, tuple(mean * stage.n_steps for mean in means), float(saved) * n_snapshots, whole=True)


def _random_snapshot(run: RunDir, spec: StageSpec, nimg: int, data_root: Path) -> RunDir:
    """The run directory of a parent, with a snapshot of small random weights."""
    if not run.snapshot(nimg).exists():
        run.prepare(spec.model_copy(update={"parent_key": None, "parent_nimg": None}))  # here it has no parent
        model = empty_model(spec, data_facts(spec.data, root=data_root)).to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        weights = {name: torch.randn(value.shape, generator=generator) * 0.02 for name, value in model.named_parameters()}
        with run.begin() as attempt:
            publish_snapshot(attempt, nimg, weights, {name: value.clone() for name, value in weights.items()}, {})
    return run


def _seconds_each(work: Callable[[int], None], most: int, share: float) -> float:
    """Seconds per image or step. ``work(n)`` does 1, 2, 4, ... of them while the next call fits into ``share`` seconds."""
    begun, n = time.perf_counter(), 1
    work(1)  # warm-up
    while True:
        _synchronize()
        started = time.perf_counter()
        work(n)
        _synchronize()
        took = time.perf_counter() - started
        if n >= most or time.perf_counter() - begun + 2 * took > share:
            return took / n
        n = min(2 * n, most)


def _sampling_seconds(spec: StageSpec, stage: GenerateStage, source: RunDir, pack: Pack, share: float) -> float:
    """Estimate the seconds of the whole stage by drawing some images and extracting their features; scores are left out."""
    assert spec.parent_nimg is not None
    device = pick_device(spec.resources.device)
    extractors = [load_extractor(name, device, images=source_images(pack)) for name in stage.all_extractors]
    facts = data_facts(spec.data, root=pack.path.parent)
    model = restore_sampled(source, spec.parent_nimg, source=facts, ema=stage.ema and spec.parent_ema, device=device)
    process, decode = NoiseProcess(spec.noise, device), decoder_for(pack, device)
    seed = derive_seed(spec.seed, "generate/set", 0)
    label = sample_labels(stage, pack.split("train").labels, facts.classes, seed) if spec.parent_labels else None

    def draw(n: int) -> None:
        labels = None if label is None else label[:n].to(device)
        images = decode(generate(model, process, stage, label=labels, indices=range(n), seed=seed))
        for extractor in extractors:
            extractor.features(images)

    return _seconds_each(draw, min(stage.batch, stage.n, MAX_IMAGES), share) * stage.n * stage.sampling_seeds


def _feature_seconds(spec: StageSpec, stage: ProbeStage, source: RunDir, pack: Pack, share: float) -> float:
    """Estimate the seconds of the whole stage from the representations of some images; fitting the probes is left out.

    The initial weights and the training with labels are counted for every stage, although stages of one architecture and seed
    share them.
    """
    facts = data_facts(spec.data, root=pack.path.parent)
    assert spec.parent_nimg is not None
    weights, device = SnapshotWeights(source, spec.parent_nimg, facts), pick_device(spec.resources.device)
    representation = Representation(spec, weights, source.root / FOLDER, device)
    times = {place.t: place for place in stage.choose.places(spec.model)} if stage.choose else {}
    places = [*times.values()][:1] or [Place(stage.block, stage.pool, stage.t or 0)]
    n_scored, n_train = len(pack.split(stage.split)), len(pack.split("train"))
    drawn = n_train if stage.reads_all else min(n_train, max(stage.shots, default=0) * facts.classes * stage.draws)
    if stage.supervised is not None:
        share /= 2  # the other half is for the training with labels
    initial = initial_weights(source, facts)
    n_weights = 1 if initial is None else 2
    labelled = (
        0.0 if initial is None else _supervised_seconds(initial, stage, pack, spec.seed, source.root / FOLDER, device, share)
    )

    def read(n: int) -> None:
        representation.of_each(pack, stage.split, np.arange(n), places=places)
        shutil.rmtree(source.root / FOLDER)  # otherwise the next call would read them from there

    images = n_scored + drawn
    if stage.choose:  # each t is tried on the validation split, and the chosen one is scored
        images = len(times) * (len(pack.split("validation")) + drawn) + n_scored
    return _seconds_each(read, min(n_scored, MAX_IMAGES), share) * images * n_weights + labelled


def _supervised_seconds(
    initial: InitialWeights, stage: ProbeStage, pack: Pack, seed: int, folder: Path, device: torch.device, share: float
) -> float:
    """Estimate the seconds of the training with labels from some of its steps; 0 if the stage asks for no such training."""
    config = stage.supervised
    if config is None:
        return 0.0

    def steps(n: int) -> None:
        fewer = config.model_copy(update={"nimg": n * config.batch, "warmup_nimg": 0})
        SupervisedWeights(initial, fewer, pack, seed, folder, device).train()

    n_steps = config.nimg // config.batch
    return _seconds_each(steps, n_steps, share) * n_steps


def _run_whole(run: RunDir, spec: StageSpec, source: RunDir, pack: Pack) -> PilotMeasurement:
    run.prepare(spec)
    work = run_generate if isinstance(spec.stage, GenerateStage) else run_probe
    with run.begin() as attempt:
        started = time.perf_counter()
        work(spec, source, pack, attempt)
        seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in run.artifacts.glob("*")) if run.artifacts.exists() else 0
    return PilotMeasurement(run.key, (seconds,), float(size), whole=True)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
