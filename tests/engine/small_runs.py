"""Training stages that take a tenth of a second, with a synthetic data set, a tiny model and a few steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from umd_bench.config.trial.data import DataConfig
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import CorruptionConfig, OptimConfig, TrainStage
from umd_bench.config.trial.trial import Resources
from umd_bench.data.datasets import DatasetInfo
from umd_bench.data.packs.manifest import Manifest, images_file, labels_file
from umd_bench.data.packs.pack import Pack
from umd_bench.store.run import RunDir

BATCH, STEPS = 8, 24
N_IMAGES = 20  # no multiple of BATCH, so some batches have images of two epochs
SOURCE = DatasetInfo(
    name="made-up", version=1, size=8, channels=1, class_names=("a", "b", "c"), licence="none", read=lambda folder: {}
)


def made_up_pack(folder: Path) -> Pack:
    """A pack of images with a bright square at one of three positions, one position per class."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        labels = np.arange(N_IMAGES) % 3
        images = rng.integers(0, 60, (N_IMAGES, 1, 8, 8), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            image[0, 2 * label : 2 * label + 3, 2:5] += 180
        np.save(folder / images_file(split, 0), images)
        np.save(folder / labels_file(split), labels.astype(np.int64))
    manifest = Manifest(
        name=SOURCE.name,
        version=1,
        size=8,
        channels=1,
        counts={"train": N_IMAGES, "test": N_IMAGES},
        shards={"train": (N_IMAGES,), "test": (N_IMAGES,)},
        class_names=SOURCE.class_names,
        licence="none",
        sha256={},
        digest="made-up",
    )
    return Pack(folder, manifest)


def training(**fields: object) -> StageSpec:
    """A stage with labels, a weight average and a bf16 moment; ``fields`` replace fields of the stage or of the spec."""
    spec_fields = {name: fields.pop(name) for name in ("seed", "parent_key", "parent_nimg") if name in fields}
    stage = {
        "kind": "pretrain",
        "nimg": BATCH * STEPS,
        "batch": BATCH,
        "corruption": CorruptionConfig(r_t0=0.5, mask_ratio=0.375),
        "labels": True,
        "optim": OptimConfig(lr_per_256=0.1, warmup_nimg=2 * BATCH, ema=True, first_moment="bf16"),
        "checkpoint_every_nimg": 5 * BATCH,
        **fields,
    }
    return StageSpec.model_validate(
        {
            "stage": TrainStage.model_validate(stage),
            "model": ModelConfig(patch=2, width=16, depth=1, decoder_depth=1, heads=2),
            "data": DataConfig(name="digits"),
            "noise": NoiseConfig(timesteps=50),
            "seed": 0,
            "resources": Resources(device="cpu"),
            **spec_fields,
        }
    )


def run_of(spec: StageSpec, root: Path) -> RunDir:
    run = RunDir(root, spec.key)
    run.path.mkdir(parents=True, exist_ok=True)
    run.prepare(spec)
    return run


class Killed(BaseException):
    """Raised instead of killing the process, so that nothing is saved."""


def after(steps: int, error: type[BaseException] | None = None) -> Callable[[], bool]:
    """A ``stop`` that returns true, or raises ``error``, before the step after ``steps``."""
    calls = iter(range(10**6))

    def stop() -> bool:
        if next(calls) < steps:
            return False
        if error is not None:
            raise error
        return True

    return stop
