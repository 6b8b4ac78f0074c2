"""The baseline is the same training step. Its loss, gradients and weights after a step equal the engine's up to rounding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from umd_bench.bench.measurements.train import manifest_of, train_spec
from umd_bench.bench.measurements.train_steps import fixed_batch
from umd_bench.bench.plain.model import PlainModel
from umd_bench.bench.plain.step import PlainStep, plain_loss
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.engine.diffusion.corruption import Noise, draw_noise
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.diffusion.objective import umd_loss
from umd_bench.engine.networks.flops import flops_per_image
from umd_bench.engine.training.loop import training_step
from umd_bench.engine.training.state import TrainingState
from umd_bench.store.run import RunDir

CPU = torch.device("cpu")


def spec_of(method: str, stage: str = "pretrain", *sets: str) -> StageSpec:
    return train_spec(
        method=method,
        tier="digits",
        model=None,
        size=None,
        stage=stage,
        batch=20 if stage == "finetune" else 8,  # of 20 images one is clean
        device=CPU,
        sets=["model.depth=2", *sets],
    )


def both(spec: StageSpec) -> tuple[TrainingState, PlainStep, Noise, torch.Tensor, torch.Tensor]:
    """The engine's state and the plain step with equal weights (noise is added, so that each of them matters), and a batch."""
    stage, facts = spec.stage, manifest_of(spec)
    assert isinstance(stage, TrainStage)
    state = TrainingState(spec, stage, facts, RunDir(Path(), spec.key), CPU)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in state.model.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.05)
        if state.average is not None:
            for name, p in state.model.named_parameters():
                state.average.weights[name].copy_(p)
    plain = PlainStep(spec, stage, state.model.state_dict(), size=facts.size, channels=facts.channels)
    x_0, label = fixed_batch(stage.batch, facts, CPU)
    noise = draw_noise(x_0, state.model.n_patches, plain.process, generator)
    return state, plain, noise, x_0, label


@pytest.mark.parametrize(
    ("method", "stage", "sets"),
    [
        ("umd", "pretrain", ()),
        ("umd", "finetune", ()),
        ("mae", "pretrain", ()),
        ("dit", "pretrain", ("stages.pretrain.loss_weight=min_snr", "noise.prediction=v")),
        ("maskdit", "pretrain", ()),
    ],
)
def test_the_loss_and_all_gradients_equal_the_engines(method: str, stage: str, sets: tuple[str, ...]) -> None:
    spec = spec_of(method, stage, *sets)
    state, plain, noise, x_0, label = both(spec)
    known = label if state.stage.labels else None
    ours = umd_loss(state.model, x_0, noise, state.stage, plain.process, known).loss
    theirs = plain_loss(plain.model, x_0, noise, state.stage, plain.process, known)
    torch.testing.assert_close(theirs, ours, rtol=2e-6, atol=0)
    torch.autograd.backward([ours, theirs])
    expected = dict(state.model.named_parameters())
    for name, p in plain.model.named_parameters():
        scale = 0.0 if expected[name].grad is None else float(expected[name].grad.abs().max())  # type: ignore[union-attr]
        found = torch.zeros_like(p) if p.grad is None else p.grad
        wanted = expected[name].grad
        torch.testing.assert_close(
            found, torch.zeros_like(p) if wanted is None else wanted, rtol=1e-4, atol=1e-5 * scale + 1e-9
        )


def test_a_step_gives_the_weights_and_the_average_of_the_engine() -> None:
    spec = spec_of("umd", "finetune")
    state, plain, _, x_0, label = both(spec)
    assert state.average is not None
    generator, process = torch.Generator(), NoiseProcess(spec.noise, CPU)
    training_step(state, spec, process, generator, x_0, label)
    # The engine seeds its generator itself. The same seed gives the plain step the same noise.
    generator.manual_seed(derive_seed(spec.seed, "finetune/noise", 0))
    plain(x_0, draw_noise(x_0, state.model.n_patches, process, generator), label)
    # AdamW's first step moves a weight by the rate times its gradient's sign, and rounding can flip a tiny gradient's sign.
    rate = state.stage.lr_peak
    found = dict(plain.model.named_parameters())
    differences = torch.cat([(found[name] - p).abs().flatten() for name, p in state.model.named_parameters()]) / rate
    assert differences.quantile(0.99) < 1e-2
    averages = torch.cat([(plain.average[name] - p).abs().flatten() for name, p in state.average.weights.items()]) / rate
    assert averages.quantile(0.99) < 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["umd", "maskdit"])
def test_flops_per_image_are_close_to_torchs_count_of_the_plain_step(method: str) -> None:
    spec = spec_of(method)
    stage, facts = spec.stage, manifest_of(spec)
    assert isinstance(stage, TrainStage)
    with torch.device("meta"):
        model = PlainModel(spec.model, size=8, channels=1, classes=0)
        x_0 = torch.empty(8, 1, 8, 8)
        noise = Noise(torch.empty(8).double(), torch.empty_like(x_0), torch.empty(8, 16), torch.empty(8, dtype=torch.bool))
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(plain_loss(model, x_0, noise, stage, NoiseProcess(spec.noise, torch.device("meta")), None))
    engine = flops_per_image(spec.model, stage, size=facts.size, channels=facts.channels, classes=0)
    # The plain step computes a condition for each image, the engine one for all clean images. This adds less than 10% here.
    assert engine <= counter.get_total_flops() / 8 <= 1.1 * engine
