"""The memorisation alarm is silent for new images and sounds for copies, whatever the scale of the features."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from evaluation.small_parents import digits

from umd_bench.evaluation.extractors.loading import load_extractor
from umd_bench.evaluation.metrics.precision_recall import nearest
from umd_bench.evaluation.samples.memorisation import Memory, memorised, memory_of


def world(scale: float) -> tuple[Memory, np.ndarray]:
    """Training images with a yardstick of 500 held-out ones, and 400 new ones of the same kind."""
    train, held_out, new = (scale * np.random.default_rng(i).normal(size=(n, 5)) for i, n in enumerate((800, 500, 400)))
    distance, _ = nearest(held_out, train, 1)
    return Memory(train, float(np.percentile(distance, 5)), 5.0, 500), new


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_new_images_are_within_the_yardstick_and_copies_sound_the_alarm(scale: float) -> None:
    memory, new = world(scale)
    honest = memorised(new, memory)
    assert honest.share < honest.alarm_above
    assert honest.share == pytest.approx(0.05, abs=0.03)
    copied = new.copy()
    copied[100:180] = memory.train[:80]
    found = memorised(copied, memory)
    assert found.share > 0.2 > found.alarm_above
    assert {(i, j) for i, j, _ in found.closest} <= {(100 + i, i) for i in range(80)}
    assert max(d for *_, d in found.closest) < 1e-6 * scale


def test_the_alarm_is_not_given_by_chance_of_few_samples() -> None:
    memory, new = world(1.0)
    assert memorised(new[:10], memory).alarm_above > 0.25
    assert memorised(np.tile(new, (30, 1)), dataclasses.replace(memory, held_out=10**6)).alarm_above == pytest.approx(0.1)


def test_the_yardstick_is_what_the_held_out_images_say() -> None:
    extractor, pack = load_extractor("digits_cnn"), digits()
    memory = memory_of(pack, extractor)
    rows = [
        extractor.features(torch.from_numpy(np.array(pack.split(split).images))).pooled.double() for split in ("test", "train")
    ]
    nearer = (torch.cdist(*rows).min(1).values <= memory.radius).double().mean().item()
    assert nearer == pytest.approx(0.05, abs=0.003)
    assert memory == dataclasses.replace(memory_of(pack, extractor), train=memory.train)
