"""A batch depends on (seed, purpose, nimg) alone, and every epoch visits each image once."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.train_stage import AugmentConfig
from umd_bench.data.batches.augment import draw_crops, draw_flips, resized_crop
from umd_bench.data.batches.batches import Batches, to_uint8, to_unit
from umd_bench.data.packs.pack import Split
from umd_bench.data.packs.sharded_array import ShardedArray

BOTH = AugmentConfig(crop_area_min=0.5, flip=True)


def made_split(n: int, *, size: int = 8, channels: int = 1) -> Split:
    """Random images whose label is their index, so that the labels of a batch identify its images."""
    images = np.random.default_rng(0).integers(0, 256, (n, channels, size, size), dtype=np.uint8)
    return Split(ShardedArray([images]), np.arange(n, dtype=np.int64))


def batches(split: Split, *, batch: int = 4, **fields: Any) -> Batches:
    defaults = {"seed": 0, "purpose": "pretrain", "augment": AugmentConfig(), "device": torch.device("cpu")}
    return Batches(split, batch=batch, **{**defaults, **fields})


def labels_of(loaded: Batches, *nimgs: int) -> list[int]:
    return [label for nimg in nimgs for label in loaded.at(nimg)[1].tolist()]


def same(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_an_image_without_augmentation_is_equal_to_the_bit() -> None:
    split = made_split(10, channels=3)
    x_0, labels = batches(split, batch=10).at(0)
    assert (x_0.dtype, x_0.shape, labels.dtype) == (torch.float32, (10, 3, 8, 8), torch.int64)
    assert np.array_equal(to_uint8(x_0).numpy(), split.images[labels.numpy()])


def test_to_unit_and_to_uint8_are_inverse_and_reach_both_ends() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    x = to_unit(levels)
    assert (x[0], x[-1]) == (-1, 1)
    assert torch.equal(to_uint8(x), levels)
    assert torch.equal(to_uint8(x + 0.49 / 127.5), levels)
    assert to_uint8(torch.tensor([-1.5, 1.5])).tolist() == [0, 255]


@pytest.mark.parametrize(("n", "batch"), [(12, 4), (10, 4), (7, 5), (3, 8), (1, 3)])
def test_every_epoch_visits_each_image_once(n: int, batch: int) -> None:
    loaded = batches(made_split(n), batch=batch)
    seen = labels_of(loaded, *range(0, 4 * n * batch, batch))
    for start in range(0, len(seen) - n + 1, n):
        assert sorted(seen[start : start + n]) == list(range(n))


def test_epochs_have_different_orders() -> None:
    loaded = batches(made_split(64), batch=64)
    orders = {tuple(labels_of(loaded, epoch * 64)) for epoch in range(4)}
    assert len(orders) == 4


@pytest.mark.parametrize("augment", [AugmentConfig(), BOTH])
def test_a_new_object_gives_the_same_batch_at_nimg_as_one_that_gave_all_earlier_batches(augment: AugmentConfig) -> None:
    split = made_split(10)
    walked = batches(split, augment=augment)
    for nimg in range(0, 60, 4):
        assert same(walked.at(nimg), batches(split, augment=augment).at(nimg))


@pytest.mark.parametrize("augment", [AugmentConfig(), BOTH])
def test_going_back_gives_the_same_batch(augment: AugmentConfig) -> None:
    loaded = batches(made_split(10), augment=augment)
    first = loaded.at(8)
    loaded.at(40)
    assert same(loaded.at(8), first)


def test_the_global_random_generators_are_neither_used_nor_changed() -> None:
    loaded = batches(made_split(10), augment=BOTH)
    torch.manual_seed(1)
    np.random.seed(1)
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = loaded.at(0)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    torch.manual_seed(2)
    assert same(loaded.at(0), first)


def test_the_order_depends_on_seed_and_purpose_but_not_on_the_batch_size() -> None:
    split = made_split(64)
    order = labels_of(batches(split, batch=64), 0)
    assert labels_of(batches(split, batch=16), 0, 16, 32, 48) == order
    assert labels_of(batches(split, batch=64, seed=1), 0) != order
    assert labels_of(batches(split, batch=64, purpose="finetune"), 0) != order


def test_arms_with_and_without_flips_have_the_same_images_and_crops() -> None:
    split = made_split(32)
    plain, _ = batches(split, batch=32, augment=AugmentConfig(crop_area_min=0.5)).at(0)
    flipped, _ = batches(split, batch=32, augment=BOTH).at(0)
    mirrored = [torch.equal(a.flip(-1), b) for a, b in zip(plain, flipped, strict=True)]
    untouched = [torch.equal(a, b) for a, b in zip(plain, flipped, strict=True)]
    assert all(a != b for a, b in zip(mirrored, untouched, strict=True))
    assert 5 < sum(mirrored) < 27


def test_an_image_is_augmented_differently_in_every_epoch() -> None:
    loaded = batches(made_split(1), batch=1, augment=AugmentConfig(crop_area_min=0.5))
    assert not torch.equal(loaded.at(0)[0], loaded.at(1)[0])


def test_a_split_that_stays_in_the_memory_map_gives_the_same_batches() -> None:
    split = made_split(10)
    for nimg in range(0, 40, 4):
        one, two = (batches(split, augment=BOTH, resident=resident).at(nimg) for resident in (True, False))
        assert same(one, two)


def test_batches_never_change_by_a_bit() -> None:
    """Every trained result depends on the order, the labels, the flips and the values of a seed's batches."""
    loaded = batches(made_split(20, size=16, channels=3), batch=8, augment=AugmentConfig(flip=True))
    content = hashlib.sha256()
    for nimg in range(0, 40, 8):
        for part in loaded.at(nimg):
            content.update(part.numpy().tobytes())
    assert content.hexdigest()[:16] == "3dbac86561750185"


def test_a_batch_has_its_images_with_the_crops_and_flips_drawn_for_it() -> None:
    split = made_split(20, size=16, channels=3)
    x_0, labels = batches(split, batch=8, augment=BOTH).at(16)
    rng = np.random.default_rng(derive_seed(0, "pretrain/augment", 16))
    crops, flips = draw_crops(rng, 8, 16, 0.5), draw_flips(rng, 8)
    cropped = resized_crop(to_unit(torch.from_numpy(split.images[labels.numpy()])), crops)
    assert torch.equal(x_0, torch.where(torch.from_numpy(flips).view(-1, 1, 1, 1), cropped.flip(-1), cropped))
    assert crops.ravel()[:8].tolist() == [2, 2, 10, 13, 1, 0, 12, 15]


def test_the_caller_may_change_a_batch() -> None:
    loaded = batches(made_split(10))
    x_0, labels = loaded.at(0)
    before = (x_0.clone(), labels.clone())
    x_0.zero_()
    labels.zero_()
    assert same(loaded.at(0), before)


def test_a_split_without_images_is_refused() -> None:
    with pytest.raises(UserError, match="no images"):
        batches(made_split(0))
