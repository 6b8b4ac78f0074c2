"""Does training wait for its data? Times the loader alone and the training step that uses its batches, on one device.

The loader is `Batches` with the crops and flips of the tier imagenet64, and the step is the training step of UMD S/4, both
as in real training. The loader should deliver at least ten times as many images per second as the step uses.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from umd_bench.bench.tables import Table, number, spread
from umd_bench.bench.timing.machine import Machine
from umd_bench.bench.timing.throughput import Throughput, Work, measure
from umd_bench.config.errors import FieldError
from umd_bench.config.sweep.resolve import load_trial
from umd_bench.config.trial.data import DataConfig
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.config.trial.trial import Resources
from umd_bench.data.batches.batches import Batches
from umd_bench.data.batches.device_rows import fits_on
from umd_bench.data.open_data import open_data
from umd_bench.data.packs.manifest import Manifest, images_file, labels_file
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import pick_device
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.training.loop import training_step
from umd_bench.engine.training.state import TrainingState
from umd_bench.store.run import RunDir

WANTED_RATIO = 10  # the loader's images per second over the step's
_SIZE, _CHANNELS, _CLASSES = 64, 3, 1000  # ImageNet-64
_SHARD = 8192  # images of a shard
_STEP = "training step"
_LOADERS = {
    True: "loader, images on the device",
    False: "loader, images in the memory map",
}  # key: whether the device holds the images


@dataclass(frozen=True)
class LoaderResult:
    """The settings, and the throughput of the step and of the ``loaders``, whose names say where the images are stored."""

    data: str
    images: int
    shape: tuple[int, int, int]  # C, H, W
    batch: int
    precision: str
    device: str
    device_name: str
    threads: int
    torch: str
    loaders: dict[str, Throughput]
    step: Throughput

    @property
    def ratio(self) -> float:
        """The slower loader's images per second divided by the step's (medians)."""
        return min(rate.median for rate in self.loaders.values()) / self.step.median

    @property
    def fast_enough(self) -> bool:
        """Whether the loader is :data:`WANTED_RATIO` times as fast as the step."""
        return self.ratio >= WANTED_RATIO

    @property
    def verdict(self) -> str:
        """The ratio in one sentence."""
        only = "" if self.fast_enough else "only "
        ratio = f"{only}{number(self.ratio)} times as fast as the S/4 training step"
        return f"The loader alone is {ratio} (wanted: {WANTED_RATIO} times)."

    def with_machine(self, machine: Machine) -> LoaderBenchResult:
        """This result as a :class:`~umd_bench.bench.tables.BenchResult`."""
        return LoaderBenchResult(machine, self)

    def as_json(self) -> dict[str, Any]:
        """All numbers and the ratio as plain values."""
        return {**asdict(self), "ratio": self.ratio, "wanted": WANTED_RATIO, "fast_enough": self.fast_enough}


@dataclass(frozen=True)
class LoaderBenchResult:
    """A :class:`LoaderResult` with its machine and tables."""

    machine: Machine
    result: LoaderResult

    def tables(self) -> list[Table]:
        """One row per loader, and one for the step."""
        rates = {**self.result.loaders, f"S/4 training step, {self.result.precision}": self.result.step}
        title = f"Data: {self.result.data}, batch {self.result.batch}"
        return [Table(title, ("", "images/s (range)"), tuple((name, spread(rate)) for name, rate in rates.items()))]

    def remarks(self) -> list[str]:
        """The ratio of loader and step."""
        return [self.result.verdict]

    def as_json(self) -> dict[str, Any]:
        """All numbers as plain values."""
        return {**self.result.as_json(), "machine": asdict(self.machine)}


def bench_data(
    *,
    data: DataConfig | None,
    data_root: Path,
    images: int,
    batch: int | None,
    repeats: int,
    threads: int | None,
    device: str = "auto",
    device_name: str = "",
    progress: Callable[[str], None] = lambda _: None,
) -> LoaderResult:
    """Measure on a packed data set, or without ``data`` on ``images`` random images of ImageNet-64's shape.

    ``batch`` defaults to 16 on a CPU and 256 on a GPU. The step uses bf16 on a GPU, as in the tier, and fp32 on a CPU. Raises
    :class:`UserError` for a data set that cannot be opened, or whose image side is not a multiple of the patch side 4.
    """
    torch_device = pick_device(device)
    if threads is not None:
        torch.set_num_threads(threads)
    batch = batch or (256 if torch_device.type == "cuda" else 16)
    with tempfile.TemporaryDirectory(prefix="umd-bench-") as folder:
        if data is None:
            progress(f"writing {images:,} images")
        pack = synthetic_pack(Path(folder), images) if data is None else open_data(data, data_root)
        facts = pack.manifest
        spec = _spec(data or DataConfig(name="imagenet", size=_SIZE), facts, batch, torch_device)
        rates = measure(_works(spec, pack, Path(folder), torch_device), repeats=repeats, device=torch_device, progress=progress)
    assert isinstance(spec.stage, TrainStage)
    return LoaderResult(
        data="made up" if data is None else facts.name,
        images=facts.counts["train"],
        shape=(facts.channels, facts.size, facts.size),
        batch=batch,
        precision=spec.stage.precision,
        device=torch_device.type,
        device_name=device_name,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        step=rates.pop(_STEP),
        loaders=rates,
    )


def synthetic_pack(folder: Path, images: int) -> Pack:
    """A sharded pack of random images of ImageNet-64's shape, uniform in 0..255; its test split has one image."""
    rng = np.random.default_rng(0)
    counts = {"train": images, "test": 1}
    shards = {split: tuple(min(_SHARD, n - start) for start in range(0, n, _SHARD)) for split, n in counts.items()}
    for split, n in counts.items():
        for index, count in enumerate(shards[split]):
            pixels = rng.integers(0, 256, (count, _CHANNELS, _SIZE, _SIZE), dtype=np.uint8)
            np.save(folder / images_file(split, index), pixels, allow_pickle=False)
        np.save(folder / labels_file(split), np.arange(n, dtype=np.int64) % _CLASSES, allow_pickle=False)
    manifest = Manifest(
        name="made-up",
        version=1,
        size=_SIZE,
        channels=_CHANNELS,
        counts=counts,
        shards=shards,
        class_names=tuple(map(str, range(_CLASSES))),
        licence="none",
        sha256={},
        digest="made-up",
    )
    return Pack(folder, manifest)


def _spec(data: DataConfig, facts: Manifest, batch: int, device: torch.device) -> StageSpec:
    """The pre-training of UMD S/4 in the tier imagenet64, with this data set and batch."""
    tier = load_trial("umd", tier="imagenet64", sets=["model=S/4"]).specs["pretrain"]
    if facts.size % tier.model.patch:
        raise FieldError(
            "--data",
            facts.name,
            f"expected images whose side is a multiple of S/4's patch side {tier.model.patch}, not {facts.size} px",
        )
    precision = "bf16" if device.type == "cuda" else "fp32"
    stage = {**tier.stage.model_dump(), "batch": batch, "nimg": batch * 1_000_000, "precision": precision}
    stage["optim"] = {**stage["optim"], "warmup_nimg": 0}
    resources = Resources(threads=torch.get_num_threads(), device="cuda" if device.type == "cuda" else "cpu")
    return tier.model_copy(update={"stage": TrainStage.model_validate(stage), "data": data, "resources": resources})


def _works(spec: StageSpec, pack: Pack, folder: Path, device: torch.device) -> dict[str, Work]:
    """A loader for each place where the images can be stored, and the step on one fixed batch. A call processes one batch."""
    stage, split = spec.stage, pack.split("train")
    assert isinstance(stage, TrainStage)

    def batches_of(resident: bool) -> Batches:
        return Batches(
            split,
            batch=stage.batch,
            seed=spec.seed,
            purpose=stage.kind,
            augment=stage.augment,
            device=device,
            resident=resident,
        )

    def loading(resident: bool) -> Work:
        batches = batches_of(resident)
        nimgs = itertools.count(0, stage.batch)
        return lambda: len(batches.at(next(nimgs))[0])

    state = TrainingState(spec, stage, pack.manifest, RunDir(folder, spec.key), device)
    process, generator = NoiseProcess(spec.noise, device), torch.Generator(device)
    x_0, label = batches_of(False).at(0)

    def step() -> int:
        training_step(state, spec, process, generator, x_0, label)
        return len(x_0)

    choices = [True, False] if fits_on(split.images.nbytes, device) else [False]
    return {_LOADERS[resident]: loading(resident) for resident in choices} | {_STEP: step}
