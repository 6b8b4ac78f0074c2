"""FLOPs follow from shapes: two a multiply-add of every matrix product, forward and backward."""

from __future__ import annotations

import pytest

from umd_bench.config.model import ModelConfig
from umd_bench.config.training import CorruptionConfig, TrainStage
from umd_bench.engine.flops import flops_per_image

MODEL = ModelConfig(patch=2, width=96, depth=2, decoder_depth=1, heads=4)


def count(**corruption: float) -> float:
    stage = TrainStage(kind="pretrain", nimg=64, batch=64, corruption=CorruptionConfig.model_validate(corruption))
    return flops_per_image(MODEL, stage, size=8, channels=1, classes=0)


def forward_by_hand(visible: int) -> float:
    """Blocks, embeddings, modulations and head for one noised image with that many visible patches of 16."""
    w, patch = 96, 4

    def block(tokens: int) -> int:
        return 2 * 12 * w * w * tokens + 2 * 2 * tokens * tokens * w + 2 * 6 * w * w

    ends = 2 * 16 * w * patch + 2 * 16 * w * 2 * patch + 2 * 4 * w * w + 2 * 2 * w * w
    return 2 * block(4 + visible) + block(17) + ends


def test_the_count_is_the_one_by_hand() -> None:
    # Backward costs twice the forward, but for the patch embedding, whose input needs no gradient.
    assert count(r_t0=0, mask_ratio=0.5) == pytest.approx(3 * forward_by_hand(8), rel=0.01)
    assert count(r_t0=0, mask_ratio=0) == pytest.approx(3 * forward_by_hand(16), rel=0.01)


def test_masking_makes_steps_cheaper_and_groups_add_up() -> None:
    dit, mae, umd = count(r_t0=0), count(r_t0=1), count(r_t0=0.5, mask_ratio=0.375)
    assert mae < umd < dit
    assert umd == pytest.approx((count(r_t0=0, mask_ratio=0.375) + mae) / 2, rel=1e-3)
