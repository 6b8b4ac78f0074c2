"""The count of floating-point operations: two per multiply-add of every matrix product, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.config.trial.train_stage import CorruptionConfig, TrainStage
from umd_bench.engine.diffusion.corruption import Noise
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.diffusion.objective import umd_loss
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.networks.flops import flops_per_image

MODEL = ModelConfig(patch=2, width=96, depth=2, decoder_depth=1, heads=4)


def count(**corruption: float) -> float:
    stage = TrainStage(kind="pretrain", nimg=64, batch=64, corruption=CorruptionConfig.model_validate(corruption))
    return flops_per_image(MODEL, stage, size=8, channels=1, classes=0)


def forward_by_hand(visible: int) -> float:
    """FLOPs of blocks, embeddings, modulations and head for one noised image with ``visible`` of 16 patches."""
    w, patch = 96, 4

    def block(tokens: int) -> int:
        return 2 * 12 * w * w * tokens + 2 * 2 * tokens * tokens * w + 2 * 6 * w * w

    ends = 2 * 16 * w * patch + 2 * 16 * w * 2 * patch + 2 * 4 * w * w + 2 * 2 * w * w
    return 2 * block(4 + visible) + block(17) + ends


def test_the_count_agrees_with_a_count_by_hand() -> None:
    # Backward costs twice the forward, except for the patch embedding, whose input needs no gradient.
    assert count(r_t0=0, mask_ratio=0.5) == pytest.approx(3 * forward_by_hand(8), rel=0.01)
    assert count(r_t0=0, mask_ratio=0) == pytest.approx(3 * forward_by_hand(16), rel=0.01)


def test_masking_makes_steps_cheaper_and_the_flops_of_clean_and_noised_images_add_up() -> None:
    dit, mae, umd = count(r_t0=0), count(r_t0=1), count(r_t0=0.5, mask_ratio=0.375)
    assert mae < umd < dit
    assert umd == pytest.approx((count(r_t0=0, mask_ratio=0.375) + mae) / 2, rel=1e-3)


def counted_by_torch(config: ModelConfig, stage: TrainStage, *, size: int, channels: int, classes: int) -> float:
    """What torch's own counter finds for the step, on the meta device, where nothing is computed."""
    B = stage.batch
    with torch.device("meta"):
        model = AutoEncoder(config, size=size, channels=channels, classes=classes)
        x_0 = torch.empty(B, channels, size, size)
        noise = Noise(
            t=torch.empty(B, dtype=torch.float64),
            eps=torch.empty_like(x_0),
            mask_noise=torch.empty(B, model.n_patches),
            drop_label=torch.empty(B, dtype=torch.bool),
        )
        label = torch.empty(B, dtype=torch.int64) if stage.labels else None
        process = NoiseProcess(NoiseConfig(), torch.device("meta"))
        with FlopCounterMode(display=False) as counter:
            torch.autograd.backward(umd_loss(model, x_0, noise, stage, process, label).loss)
    return float(counter.get_total_flops()) / B


@pytest.mark.slow
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("adaln", [True, False])
@pytest.mark.parametrize(("r_t0", "mask_ratio"), [(0, 0), (0, 0.5), (0.5, 0.375), (0.25, 0), (1, 0)])
def test_the_count_equals_torchs_exactly(r_t0: float, mask_ratio: float, adaln: bool, labels: bool) -> None:
    config = ModelConfig(patch=4, width=32, depth=3, decoder_depth=2, heads=2, class_tokens=3, adaln=adaln)
    corruption = CorruptionConfig(r_t0=r_t0, mask_ratio=mask_ratio)
    stage = TrainStage(kind="pretrain", nimg=64, batch=8, labels=labels, corruption=corruption)
    shape = {"size": 16, "channels": 3, "classes": 10 if labels else 0}
    assert flops_per_image(config, stage, **shape) == counted_by_torch(config, stage, **shape)
