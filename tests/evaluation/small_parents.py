"""Fixtures: the packed data set `digits`, a tiny untrained model as a finished parent, and evaluation stages of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import CorruptionConfig, OptimConfig, TrainStage
from umd_bench.config.trial.trial import Resources
from umd_bench.data.open_data import open_pack
from umd_bench.data.packs.manifest import data_root
from umd_bench.data.packs.pack import Pack, Split
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.training.snapshot import publish_snapshot
from umd_bench.store.run import RunDir

NIMG = 8
MODEL = ModelConfig(patch=4, width=16, depth=1, decoder_depth=1, heads=2)
SHARED: dict[str, Any] = {
    "model": MODEL,
    "data": {"name": "digits"},
    "noise": NoiseConfig(timesteps=60),
    "resources": Resources(device="cpu"),
}
TRAINED = TrainStage(
    kind="pretrain",
    nimg=NIMG,
    batch=8,
    corruption=CorruptionConfig(r_t0=0.5, mask_ratio=0.5),
    labels=True,
    optim=OptimConfig(ema=True),
)


def opened_splits(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """A set that collects the names of the splits that are opened from now on."""
    opened, split = set[str](), Pack.split

    def noted(pack: Pack, name: str) -> Split:
        opened.add(name)
        return split(pack, name)

    monkeypatch.setattr(Pack, "split", noted)
    return opened


def digits() -> Pack:
    return open_pack("digits", data_root())


def parent_run(
    root: Path, *, labels: bool = True, spoil: bool = False, model: ModelConfig = MODEL, parent: RunDir | None = None
) -> RunDir:
    """A finished parent, whose average is another model's weights; with ``spoil`` its raw weights, not the average, are NaN.

    With ``parent`` it is a fine-tuning of that run, with other weights.
    """
    stage = TRAINED.model_copy(update={"labels": labels})
    ours: dict[str, Any] = {**SHARED, "model": model}
    if parent is not None:
        stage = stage.model_copy(update={"kind": "finetune", "parent": "pretrain"})
        ours |= {"parent_key": parent.key, "parent_nimg": NIMG}
    spec = StageSpec(stage=stage, seed=0, **ours)
    run = RunDir(root, spec.key)
    run.prepare(spec)
    seeds = (0, 1) if parent is None else (2, 3)
    weights, average = (_weights(model, seed, classes=10 * labels) for seed in seeds)
    if spoil:
        weights = {name: torch.full_like(value, float("nan")) for name, value in weights.items()}
    with run.begin() as attempt:
        publish_snapshot(attempt, NIMG, weights, average, {})
    return run


def _weights(model: ModelConfig, seed: int, classes: int) -> dict[str, Tensor]:
    """Initial weights plus noise. Without the noise adaLN-zero's gates are 0, and all images have the same representation."""
    generator = torch.Generator().manual_seed(seed)
    state = build_model(model, size=8, channels=1, classes=classes, seed=seed).state_dict()
    return {name: value + 0.2 * torch.randn(value.shape, generator=generator) for name, value in state.items()}


def stage_of(parent: RunDir, kind: str, *, seed: int = 0, model: ModelConfig = MODEL, **fields: object) -> StageSpec:
    """A probe or generate stage of ``parent``."""
    defaults: dict[str, object] = {"t": 0} if kind == "probe" else {"n": 30, "steps": 2, "extractor": "digits_cnn"}
    trained = parent.config().stage
    assert isinstance(trained, TrainStage)
    return StageSpec(
        stage={"kind": kind, "parent": "pretrain", **defaults, **fields},
        seed=seed,
        parent_key=parent.key,
        parent_nimg=NIMG,
        parent_labels=trained.labels,
        parent_ema=trained.optim.ema,
        **{**SHARED, "model": model},
    )


def run_of(spec: StageSpec, root: Path) -> RunDir:
    run = RunDir(root, spec.key)
    run.prepare(spec)
    return run
