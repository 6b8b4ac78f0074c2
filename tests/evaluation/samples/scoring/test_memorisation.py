"""The memorisation alarm is silent for new images and sounds for copies, at any scale of the features."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from evaluation.small_parents import digits

from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.metrics.precision_recall import euclidean_neighbours
from umd_bench.evaluation.samples.scoring.memorisation import TrainingDistance, memorisation, training_distance


def training_and_new_images(scale: float) -> tuple[TrainingDistance, np.ndarray]:
    """Training images with a radius from 500 held-out images, and 400 new images of the same kind."""
    train, held_out, new = (scale * np.random.default_rng(i).normal(size=(n, 5)) for i, n in enumerate((800, 500, 400)))
    distance, _ = euclidean_neighbours(held_out, train, 1)
    return TrainingDistance(train, float(np.percentile(distance, 5)), 5.0, 500), new


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_new_images_give_the_expected_share_and_copies_sound_the_alarm(scale: float) -> None:
    training, new = training_and_new_images(scale)
    honest = memorisation(new, training)
    assert honest.share < honest.alarm_above
    assert honest.share == pytest.approx(0.05, abs=0.03)
    copied = new.copy()
    copied[100:180] = training.train[:80]
    alarm = memorisation(copied, training)
    assert alarm.share > 0.2 > alarm.alarm_above
    assert {(i, j) for i, j, _ in alarm.nearest_pairs} <= {(100 + i, i) for i in range(80)}
    assert max(d for *_, d in alarm.nearest_pairs) < 1e-6 * scale


def test_few_samples_do_not_sound_the_alarm_by_chance() -> None:
    training, new = training_and_new_images(1.0)
    assert memorisation(new[:10], training).alarm_above > 0.25
    assert memorisation(np.tile(new, (30, 1)), dataclasses.replace(training, held_out=10**6)).alarm_above == pytest.approx(0.1)


@pytest.mark.parametrize(("held_out", "n"), [("test", 500), ("validation", 250)])
def test_five_percent_of_the_held_out_images_are_within_the_radius(held_out: str, n: int) -> None:
    extractor, pack = load_extractor("digits_cnn"), digits()
    training = training_distance(pack, extractor, held_out)
    assert (training.held_out, training.split) == (n, held_out)
    rows = [
        extractor.features(torch.from_numpy(np.array(pack.split(split).images))).pooled.double()
        for split in (held_out, "train")
    ]
    nearer = (torch.cdist(*rows).min(1).values <= training.radius).double().mean().item()
    assert nearer == pytest.approx(0.05, abs=0.003)
    assert training == dataclasses.replace(training_distance(pack, extractor, held_out), train=training.train)
