"""Runs some steps or images of stages and says what the whole of each would take: a process of its own, for a forecast.

Weights are made up, since what an image costs does not depend on them. Each stage has an equal share of half of the time that
is allowed; in the other half evaluations that were seen to be short are run whole. Started as a module, ``short_runs FOLDER``.
"""

from __future__ import annotations

import json
import math
import shutil
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.datasets import data_facts
from umd_bench.data.open_data import open_data
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
from umd_bench.evaluation.probes.representation import Representation
from umd_bench.evaluation.samples.generate_stage import run_generate, sample_labels
from umd_bench.orchestration.forecast.pilot import ASKED, ENDED, FOUND, Measured
from umd_bench.store.run import RunDir

FEWEST_STEPS = 4
PARTS = 3  # into which the steps are dealt, to see how far their speed lies apart
MOST_IMAGES = 512
WIDTH = 200  # characters that are told of an error


def main(folder: str) -> int:
    """Measure what is asked for in the folder; the exit status."""
    path = Path(folder)
    asked: dict[str, Any] = json.loads((path / ASKED).read_text())
    data_root = Path(asked["data_root"])
    stages = [[None if one is None else _Asked(one) for one in pair] for pair in asked["stages"]]
    share, until = asked["seconds"] / 2 / len(stages), time.monotonic() + asked["seconds"]
    longer: list[tuple[float, Callable[[], Measured]]] = []
    for stage, parent in stages:
        assert stage is not None
        torch.set_num_threads(stage.spec.resources.threads)
        try:
            found, whole = _measure(path / "results", stage, parent, data_root, share)
        except Exception as error:  # one that cannot be measured keeps no other from it
            found, whole = Measured(stage.key, error=_headline(error)), None
        _note(path, found)
        if whole is not None:
            longer.append((max(found.seconds), whole))
    for estimate, whole in sorted(longer, key=lambda item: item[0]):
        if time.monotonic() + 2 * estimate < until:
            try:
                _note(path, whole())
            except Exception as error:  # then what was found before stands
                print(_headline(error), file=sys.stderr)
    (path / ENDED).touch()
    return 0


def _headline(error: Exception) -> str:
    """The first line that says something."""
    return next((line.strip()[:WIDTH] for line in str(error).splitlines() if line.strip()), type(error).__name__)


class _Asked:
    """One stage that is asked about, by the key it has where it is asked."""

    def __init__(self, written: dict[str, Any]) -> None:
        self.key, self.spec = str(written["key"]), StageSpec.model_validate(written["spec"])


def _note(path: Path, found: Measured) -> None:
    with (path / FOUND).open("a") as file:
        file.write(json.dumps(found.__dict__) + "\n")


def _measure(
    root: Path, asked: _Asked, parent: _Asked | None, data_root: Path, share: float
) -> tuple[Measured, Callable[[], Measured] | None]:
    """What a share of the time says about one stage, and what would run the whole of it."""
    spec = asked.spec
    pack = open_data(spec.input_data, data_root)
    run = RunDir(root, asked.key)
    if isinstance(spec.stage, TrainStage):
        return _steps(run, spec, spec.stage, pack, share), None
    if parent is None or spec.parent_nimg is None:
        raise UserError(f"a {spec.kind} stage is not measured")
    source = _made_up_weights(RunDir(root, parent.key), parent.spec, spec.parent_nimg, data_root)
    if isinstance(spec.stage, GenerateStage):
        seconds = _samples(spec, spec.stage, source, pack, share)
    else:
        assert isinstance(spec.stage, ProbeStage)
        seconds = _features(spec, spec.stage, source, pack, share)
    return Measured(run.key, (seconds,)), lambda: _whole(run, spec, source, pack)


def _steps(run: RunDir, spec: StageSpec, stage: TrainStage, pack: Pack, share: float) -> Measured:
    """The loop itself, stopped after some steps; its checkpoint is thrown away, and the size of it is not."""

    resources = spec.resources.model_copy(update={"devices": 1})
    alone = spec.model_copy(update={"parent_key": None, "parent_nimg": None, "resources": resources})
    run.prepare(alone)
    times: list[float] = []

    def enough() -> bool:
        _wait()
        times.append(time.perf_counter())
        return len(times) > FEWEST_STEPS and times[-1] - times[0] >= share

    with run.begin() as attempt:
        try:
            train(alone, pack, attempt, stop=enough)
        except Stopped:
            pass
        else:
            _wait()
            times.append(time.perf_counter())
        saved = max((file.stat().st_size for file in attempt.path.rglob("*.safetensors")), default=0)
    steps = [after - before for before, after in pairwise(times)]
    steps = steps[1:] if len(steps) > PARTS else steps  # the first one makes what all need
    parts = [steps[part::PARTS] for part in range(PARTS) if steps[part::PARTS]]
    each = [math.fsum(part) / len(part) for part in parts]
    kept = len({*stage.snapshots, stage.nimg})
    return Measured(run.key, tuple(step * stage.n_steps for step in each), float(saved) * kept, whole=True)


def _made_up_weights(run: RunDir, spec: StageSpec, nimg: int, data_root: Path) -> RunDir:
    """A snapshot of small random numbers: what an image costs does not depend on them."""

    if not run.snapshot(nimg).exists():
        run.prepare(spec)
        model = empty_model(spec, data_facts(spec.data, root=data_root)).to_empty(device="cpu")
        generator = torch.Generator().manual_seed(0)
        weights = {name: torch.randn(value.shape, generator=generator) * 0.02 for name, value in model.named_parameters()}
        with run.begin() as attempt:
            publish_snapshot(attempt, nimg, weights, {name: value.clone() for name, value in weights.items()}, {})
    return run


def _doubling(work: Callable[[int], None], most: int, share: float) -> float:
    """Seconds for an image, of the largest of growing batches that fit into the time."""
    begun, n = time.perf_counter(), 1
    work(1)  # what is made when it is first called
    while True:
        _wait()
        started = time.perf_counter()
        work(n)
        _wait()
        took = time.perf_counter() - started
        if n >= most or time.perf_counter() - begun + 2 * took > share:
            return took / n
        n = min(2 * n, most)


def _samples(spec: StageSpec, stage: GenerateStage, source: RunDir, pack: Pack, share: float) -> float:

    assert spec.parent_nimg is not None
    device = pick_device(spec.resources.device)
    extractors = [load_extractor(name, device) for name in stage.all_extractors]
    facts = data_facts(spec.data, root=pack.path.parent)
    model = restore_sampled(source, spec.parent_nimg, source=facts, ema=stage.ema and spec.parent_ema, device=device)
    process, decode, seed = (
        NoiseProcess(spec.noise, device),
        decoder_for(pack, device),
        derive_seed(spec.seed, "generate/set", 0),
    )
    label = sample_labels(stage, pack.split("train").labels, facts.classes, seed) if spec.parent_labels else None

    def draw(n: int) -> None:
        asked = None if label is None else label[:n].to(device)
        images = decode(generate(model, process, stage, label=asked, indices=range(n), seed=seed))
        for extractor in extractors:
            extractor.features(images)

    return _doubling(draw, min(stage.batch, stage.n, MOST_IMAGES), share) * stage.n * stage.sampling_seeds


def _features(spec: StageSpec, stage: ProbeStage, source: RunDir, pack: Pack, share: float) -> float:

    facts = data_facts(spec.data, root=pack.path.parent)
    representation = Representation(spec, source, facts, pick_device(spec.resources.device))
    n_test, n_train = len(pack.split("test")), len(pack.split("train"))
    drawn = n_train if stage.reads_all else min(n_train, max(stage.shots, default=0) * facts.classes * stage.draws)

    def read(n: int) -> None:
        representation.of(pack, "test", np.arange(n))
        shutil.rmtree(source.root / "features")  # or the next would be read and not made

    return _doubling(read, min(n_test, MOST_IMAGES), share) * (n_test + drawn)


def _whole(run: RunDir, spec: StageSpec, source: RunDir, pack: Pack) -> Measured:

    run.prepare(spec)
    work = run_generate if isinstance(spec.stage, GenerateStage) else run_probe
    with run.begin() as attempt:
        started = time.perf_counter()
        work(spec, source, pack, attempt)
        seconds = time.perf_counter() - started
    size = sum(file.stat().st_size for file in run.artifacts.glob("*")) if run.artifacts.exists() else 0
    return Measured(run.key, (seconds,), float(size), whole=True)


def _wait() -> None:

    if torch.cuda.is_available():
        torch.cuda.synchronize()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
