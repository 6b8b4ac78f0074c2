"""The batched crop equals cropping each image alone, and its boxes have the stated distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from umd_bench.data.batches.augment import draw_crops, draw_flips, resized_crop


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("size", [8, 32, 45])
def test_a_batched_crop_equals_interpolating_each_crop_alone(size: int) -> None:
    crops = draw_crops(rng(), 32, size, 0.2)
    x = torch.rand(32, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    alone = torch.cat(
        [
            F.interpolate(x[i : i + 1, :, top : top + h, left : left + w], (size, size), mode="bilinear", align_corners=False)
            for i, (top, left, h, w) in enumerate(crops)
        ]
    )
    assert (resized_crop(x, crops) - alone).abs().max() < 2e-5


def test_a_crop_of_the_whole_image_changes_it_by_rounding_only() -> None:
    x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert (resized_crop(x, np.array([[0, 0, 64, 64]] * 2)) - x).abs().max() < 2e-5


def test_values_stay_in_range() -> None:
    x = torch.rand(64, 1, 16, 16, generator=torch.Generator().manual_seed(0)).round() * 2 - 1
    cropped = resized_crop(x, draw_crops(rng(), 64, 16, 0.1))
    assert cropped.abs().max() <= 1 + 1e-6


@pytest.mark.parametrize("area_min", [0.2, 0.8, 0.95])
@pytest.mark.parametrize("size", [8, 64, 224])
def test_boxes_lie_in_the_image_with_the_stated_area_and_aspect(area_min: float, size: int) -> None:
    top, left, height, width = draw_crops(rng(), 5000, size, area_min).T
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + height).max() <= size
    assert (left + width).max() <= size
    # Rounding moves each side by half a pixel at most.
    assert np.all((height + 0.5) * (width + 0.5) >= area_min * size**2)
    assert np.all((width - 0.5) / (height + 0.5) <= 4 / 3)
    assert np.all((width + 0.5) / (height - 0.5) >= 3 / 4)


def test_areas_are_uniform_aspects_symmetric_and_positions_reach_both_ends() -> None:
    top, left, height, width = draw_crops(rng(), 20_000, 400, 0.1).T
    area = height * width / 400**2
    # A box of an area close to 1 fits only if its aspect is close to 1; up to an area of 0.7 every aspect in 3/4..4/3 fits.
    assert np.histogram(area[area < 0.7], bins=6, range=(0.1, 0.7))[0] == pytest.approx((area < 0.7).sum() / 6, rel=0.08)
    log_aspect = np.log(width / height)
    assert log_aspect.mean() == pytest.approx(0, abs=0.005)
    assert log_aspect[area < 0.7].std() == pytest.approx(2 * np.log(4 / 3) / 12**0.5, rel=0.03)
    for start, extent in ((top, height), (left, width)):
        position = start[extent < 300] / (400 - extent[extent < 300])
        assert position.min() < 0.01
        assert position.max() > 0.99
        assert position.mean() == pytest.approx(0.5, abs=0.01)


def test_the_whole_image_is_taken_if_no_box_fits() -> None:
    top, left, height, width = draw_crops(rng(), 500, 10_000, 0.9999).T  # only an aspect within 1e-4 of 1 fits
    whole = (height == 10_000) & (width == 10_000)
    assert whole.mean() > 0.95
    assert not top[whole].any()
    assert not left[whole].any()


def test_a_box_may_touch_every_edge() -> None:
    boxes = draw_crops(rng(), 2000, 8, 0.2)
    for start, extent in ((boxes[:, 0], boxes[:, 2]), (boxes[:, 1], boxes[:, 3])):
        smaller = extent < 8
        assert (start[smaller] == 0).any()
        assert (start[smaller] + extent[smaller] == 8).any()


def test_boxes_are_distributed_as_torchvisions() -> None:
    from torchvision.transforms import RandomResizedCrop

    n, image = 5000, torch.empty(1, 64, 64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = np.array([RandomResizedCrop.get_params(image, [0.9, 1], [3 / 4, 4 / 3]) for _ in range(n)])
    ours = draw_crops(rng(), n, 64, 0.9)
    for statistic in (lambda box: box[:, 2:].prod(axis=1) == 64 * 64, lambda box: box[:, 2] == 64, lambda box: box[:, 0] > 0):
        assert statistic(ours).mean() == pytest.approx(statistic(theirs).mean(), abs=0.03)
    assert ours[:, 2:].prod(axis=1).mean() == pytest.approx(theirs[:, 2:].prod(axis=1).mean(), rel=0.005)


def test_half_of_the_images_are_flipped() -> None:
    assert draw_flips(rng(), 20_000).mean() == pytest.approx(0.5, abs=0.02)
