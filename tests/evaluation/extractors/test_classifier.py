"""Training an extractor depends on its arguments alone, and reads only the train split."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.small_parents import digits

from umd_bench.config.errors import UserError
from umd_bench.data.open_data import open_pack
from umd_bench.data.packs.manifest import data_root
from umd_bench.data.packs.pack import Pack, Split
from umd_bench.evaluation.extractors import classifier
from umd_bench.evaluation.extractors.classifier import (
    accuracy,
    build_classifier,
    read_weights,
    train_classifier,
    train_extractor,
)
from umd_bench.evaluation.extractors.classifier_recipes import RECIPES, WEIGHTS


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RECIPES, "digits_cnn", dataclasses.replace(RECIPES["digits_cnn"], epochs=3))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_training_repeats_to_the_bit_with_any_global_random_state() -> None:
    torch.manual_seed(1)
    first = train_classifier("digits_cnn", digits())
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert same(first, train_classifier("digits_cnn", digits()))
    assert torch.equal(before, torch.get_rng_state())
    assert not same(first, train_classifier("digits_cnn", digits(), seed=1))


def test_training_never_reads_the_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Pack.split

    def guarded(pack: Pack, name: str) -> Split:
        assert name == "train"
        return split(pack, name)

    monkeypatch.setattr(Pack, "split", guarded)
    train_classifier("digits_cnn", digits())


def test_three_epochs_are_enough_to_learn_digits() -> None:
    model = build_classifier("digits_cnn", train_classifier("digits_cnn", digits()))
    assert accuracy(model, digits().split("test")) > 0.7


@pytest.mark.slow
def test_a_written_extractor_reads_back_and_its_description_is_right(tmp_path: Path) -> None:
    train_extractor("digits_cnn", tmp_path, data_root())
    state, digest = read_weights("digits_cnn", tmp_path)
    described = json.loads((tmp_path / "digits_cnn.json").read_text())
    assert same(state, train_classifier("digits_cnn", digits()))
    assert described["sha256"] == digest
    assert described["data_digest"] == digits().manifest.digest
    assert described["test_accuracy"] == accuracy(build_classifier("digits_cnn", state), digits().split("test"))


@pytest.mark.parametrize("name", RECIPES)
def test_a_committed_classifier_says_which_images_it_was_trained_on(name: str) -> None:
    """Either on the training images of today's pack, or on those of an earlier version, which hold its validation images."""
    described = json.loads((WEIGHTS / f"{name}.json").read_text())
    try:
        pack = open_pack(RECIPES[name].data, data_root())
    except UserError as missing:
        pytest.skip(f"the data set is not here: {missing}")
    if described["data_digest"] == pack.manifest.digest:
        assert described["trained_on"] == "the train split"
    else:
        assert "today's train and validation images" in described["trained_on"]


@pytest.mark.parametrize("flip", [False, True])
def test_augmentation_shifts_and_repeats_the_border_and_flips_only_if_flip_is_true(flip: bool) -> None:
    recipe = dataclasses.replace(RECIPES["digits_cnn"], shift=1, flip=flip)
    images = torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(400, 1, 1, 1)
    padded = np.pad(images[0, 0].numpy(), 1, mode="edge")
    expected = [padded[i : i + 8, j : j + 8] for i in range(3) for j in range(3)]
    expected += [image[:, ::-1] for image in expected] if flip else []
    augmented = classifier._augmented(images, recipe, np.random.default_rng(0))
    assert {image[0].numpy().tobytes() for image in augmented} == {image.tobytes() for image in expected}


def test_an_unknown_extractor_and_another_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match="'inception' cannot be trained: expected one of contrast16_cnn, digits_cnn, emoji_cnn, fashion_cnn"
    ):
        train_extractor("inception", tmp_path, data_root())
    with pytest.raises(UserError, match="fashion_cnn is trained on fashion_mnist, not on digits"):
        train_classifier("fashion_cnn", digits())
