"""The plain loop draws the same samples as the engine's DDIM."""

from __future__ import annotations

import pytest
import torch

from umd_bench.bench.plain.model import PlainModel
from umd_bench.bench.plain.sampling import plain_ddim
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.samplers import generate, sample_noise

CPU = torch.device("cpu")


@pytest.mark.parametrize(("scale", "passes"), [(1.0, 6), (2.5, 12)])
def test_the_plain_loop_draws_the_samples_of_the_engines_ddim(scale: float, passes: int) -> None:
    config = ModelConfig(patch=2, width=32, depth=2, decoder_depth=1, heads=2)
    model = build_model(config, size=8, channels=1, classes=3, seed=0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())), alpha=0.05)
    plain = PlainModel(config, size=8, channels=1, classes=3)
    plain.load_state_dict(model.state_dict())
    stage = GenerateStage(parent="p", n=4, steps=5, eta=0, cfg_scale=scale, extractor="none")
    process, label = NoiseProcess(NoiseConfig()), torch.tensor([0, 1, 2, 0])
    ours = generate(model, process, stage, label=label, indices=range(4), seed=1)
    theirs, calls = plain_ddim(plain, process, stage, next(sample_noise(1, range(4), (1, 8, 8), CPU)), label)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=2e-4)
    assert ours.std() > 0.05
    assert calls == passes
