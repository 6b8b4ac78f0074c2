"""Batches of latents: a fresh sample of each posterior, or its mean in evaluations; crops are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from data.small_vaes import CHANNELS, FACTOR, N_TRAIN, SCALE, SHIFT, SIZE

from umd_bench.config.errors import FieldError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.train_stage import AugmentConfig
from umd_bench.data.batches.augment import draw_crops, draw_flips
from umd_bench.data.batches.batches import Batches, unaugmented
from umd_bench.data.packs.pack import Pack

CPU = torch.device("cpu")
h = SIZE // FACTOR


def batches(pack: Pack, *, batch: int = 8, seed: int = 0, purpose: str = "pretrain", flip: bool = True) -> Batches:
    augment = AugmentConfig(flip=flip)
    return Batches(pack.split("train"), batch=batch, seed=seed, purpose=purpose, augment=augment, device=CPU)


def test_a_batch_samples_the_posterior_of_the_view_that_the_flip_chooses(packed: Pack) -> None:
    x_0, labels = batches(packed).at(8)
    order = np.random.default_rng(derive_seed(0, "pretrain/order", 0)).permutation(N_TRAIN)[8:16]
    rng = np.random.default_rng(derive_seed(0, "pretrain/augment", 8))
    draw_crops(rng, 8, SIZE, 0.8)  # images draw crops before flips; latents do so too, to get the same flips
    flips = draw_flips(rng, 8)
    split = packed.split("train")
    moments = split.images[order].astype(np.float32)[np.arange(8), flips.astype(int)]
    eps = torch.randn(8, CHANNELS, h, h, generator=torch.Generator().manual_seed(derive_seed(0, "pretrain/posterior", 8)))
    expected = (moments[:, 0] + moments[:, 1] * eps.numpy() - SHIFT) * SCALE
    assert 0 < flips.sum() < 8
    assert np.allclose(x_0.numpy(), expected, atol=1e-6)
    assert np.array_equal(labels.numpy(), split.labels[order])


def test_a_batch_depends_on_seed_purpose_and_nimg_alone(packed: Pack) -> None:
    walked = batches(packed)
    for nimg in (0, 8, 16, 24):
        assert torch.equal(walked.at(nimg)[0], batches(packed).at(nimg)[0])
    assert torch.equal(walked.at(8)[0], batches(packed).at(8)[0])
    for other in (batches(packed, seed=1), batches(packed, purpose="finetune")):
        assert not torch.equal(other.at(0)[0], walked.at(0)[0])


def test_each_visit_is_a_fresh_sample_with_the_posteriors_moments(packed: Pack) -> None:
    split = packed.split("train")
    loaded = batches(packed, batch=N_TRAIN, flip=False)
    seen = torch.stack([epoch_in_order(loaded, epoch) for epoch in range(400)])
    mean, std = (torch.from_numpy(split.images[:][:, 0, moment].astype(np.float32)) for moment in (0, 1))
    error = (seen.mean(0) - (mean - SHIFT) * SCALE).abs() / (std * SCALE / 20)
    assert error.max() < 6  # standard errors of 400 samples, over 24 * 256 numbers
    assert ((seen.std(0) / (std * SCALE)) - 1).abs().max() < 0.2


def epoch_in_order(loaded: Batches, epoch: int) -> torch.Tensor:
    """A batch of a whole epoch, in the order of the split."""
    order = np.random.default_rng(derive_seed(0, "pretrain/order", epoch)).permutation(N_TRAIN)
    return loaded.at(epoch * N_TRAIN)[0][torch.from_numpy(np.argsort(order))]


def test_an_evaluation_sees_the_scaled_mean_of_the_image_itself(packed: Pack) -> None:
    split = packed.split("test")
    index = np.array([3, 0])
    expected = (split.images[index][:, 0, 0].astype(np.float32) - SHIFT) * SCALE
    assert np.allclose(unaugmented(split, index).numpy(), expected, atol=1e-6)


def test_crops_of_latents_are_refused(packed: Pack) -> None:
    augment = AugmentConfig(crop_area_min=0.8)
    with pytest.raises(FieldError, match=r"augment\.crop_area_min = 0\.8 is not accepted: expected 1 on latents"):
        Batches(packed.split("train"), batch=8, seed=0, purpose="pretrain", augment=augment, device=CPU)
