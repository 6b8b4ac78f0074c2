"""contrast16: an image depends on its number, not on how many are made, and pixels say little about the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from umd_bench.config.errors import UserError
from umd_bench.data.builtin import contrast16, digits
from umd_bench.evaluation.probes.ridge import draw_shots, fit_ridge_path

FEW = {"train": 5_000, "validation": 500, "test": 500}


def test_the_first_images_do_not_depend_on_how_many_are_made() -> None:
    source = digits.read(None)["validation"]
    images, labels = contrast16.make("validation", *source, 4_200)
    fewer, fewer_labels = contrast16.make("validation", *source, 30)
    assert images.shape == (4_200, 1, 16, 16)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images[:30], fewer)
    np.testing.assert_array_equal(labels[:30], fewer_labels)
    assert (images[:30] != images[4_000:4_030]).any(axis=(1, 2, 3)).all()  # the second block is no copy of the first


def test_the_figure_is_as_often_brighter_as_darker_than_the_ground_and_always_differs() -> None:
    rng = np.random.default_rng(0)
    ground, figure = contrast16._greys(10_000, rng)
    assert (np.abs(figure - ground) >= 0.4).all()
    assert min(ground.min(), figure.min()) >= 0
    assert max(ground.max(), figure.max()) <= 1
    assert 0.47 < (figure > ground).mean() < 0.53


def test_a_pose_keeps_the_whole_figure_of_a_digit_in_the_image() -> None:
    strength = digits.read(None)["test"][0][:, 0].astype(np.float64) / 255
    posed = contrast16._posed(strength, np.random.default_rng(0))
    assert posed.min() >= 0
    assert posed.max() <= 1
    # Areas grow by scale^2 * stretch, between 1.6^2 * .85 and 2.1^2 * 1.15; little is cut off at the border.
    growth = posed.sum((1, 2)) / strength.sum((1, 2))
    assert (growth > 1.6**2 * 0.85 * 0.9).all()
    assert (growth < 2.1**2 * 1.15 * 1.05).all()


def test_a_folder_is_refused() -> None:
    with pytest.raises(UserError, match="not read from a folder, but somewhere was given"):
        contrast16.read(Path("somewhere"))


def test_other_pixels_than_the_published_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contrast16, "COUNTS", FEW)
    with pytest.raises(UserError, match=r"contrast16's train split came out different on this machine \(SHA-256 "):
        contrast16.read(None)


@pytest.mark.slow
def test_the_published_splits_are_made_and_a_probe_of_their_pixels_has_a_low_accuracy() -> None:
    splits = contrast16.read(None)
    assert {name: len(labels) for name, (_, labels) in splits.items()} == contrast16.COUNTS
    assert all(np.bincount(labels).min() > 0.08 * len(labels) for _, labels in splits.values())
    (images, labels), (test, test_labels) = splits["train"], splits["test"]
    rows = draw_shots(labels, [100], classes=10, seed=0)[100]
    x, x_test = (torch.from_numpy(array.reshape(len(array), -1)).double() for array in (images[rows], test))
    path = fit_ridge_path(x, torch.from_numpy(labels[rows]), classes=10, ridges=(1, 10, 100, 1000))
    assert path.probe(path.best).accuracy(x_test, torch.from_numpy(test_labels)) < 0.25
