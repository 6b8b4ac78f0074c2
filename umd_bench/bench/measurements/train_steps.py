"""The two steps that `bench train` compares, each on one fixed batch: the engine's and the plain baseline's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from umd_bench.bench.plain.step import PlainStep
from umd_bench.bench.timing.matmul_peak import Precision
from umd_bench.bench.timing.throughput import Work
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.packs.manifest import Manifest
from umd_bench.engine.diffusion.corruption import draw_noise
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.training.loop import training_step
from umd_bench.engine.training.state import TrainingState
from umd_bench.store.run import RunDir


def engine_step(
    spec: StageSpec, precision: Precision, facts: Manifest, device: torch.device, *, compiled: bool = False
) -> Work:
    """The training loop's step on one fixed batch; a call makes one step and returns its number of images."""
    assert isinstance(spec.stage, TrainStage)
    stage = spec.stage.model_copy(update={"precision": precision})
    resources = spec.resources.model_copy(update={"compile": compiled})
    spec = spec.model_copy(update={"stage": stage, "resources": resources})
    state = TrainingState(spec, stage, facts, RunDir(Path(), spec.key), device)  # reads no file, since the stage has no parent
    process, generator = NoiseProcess(spec.noise, device), torch.Generator(device)
    x_0, label = fixed_batch(stage.batch, facts, device)

    def step() -> int:
        training_step(state, spec, process, generator, x_0, label)
        return len(x_0)

    return step


def plain_step(spec: StageSpec, facts: Manifest, device: torch.device, *, tf32: bool = False) -> Work:
    """The baseline's step on the same batch; the engine's function draws its noise. ``tf32`` allows TF32 on a GPU."""
    stage = spec.stage
    assert isinstance(stage, TrainStage)
    state = TrainingState(spec, stage, facts, RunDir(Path(), spec.key), device)
    plain = PlainStep(spec, stage, state.model.state_dict(), size=facts.size, channels=facts.channels)
    generator = torch.Generator(device).manual_seed(0)
    x_0, label = fixed_batch(stage.batch, facts, device)
    n_patches = plain.model.side**2

    def step() -> int:
        with _tf32(tf32):
            plain(x_0, draw_noise(x_0, n_patches, plain.process, generator), label if stage.labels else None)
        return len(x_0)

    return step


@contextmanager
def _tf32(allowed: bool) -> Iterator[None]:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed or before
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def fixed_batch(batch: int, facts: Manifest, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random images [B, C, H, W], uniform in [-1, 1], and labels [B]; the cost of a step does not depend on them."""
    generator = torch.Generator().manual_seed(0)
    x_0 = torch.rand(batch, facts.channels, facts.size, facts.size, generator=generator) * 2 - 1
    return x_0.to(device), (torch.arange(batch) % len(facts.class_names)).to(device)
