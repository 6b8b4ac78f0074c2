"""Training an extractor depends on its arguments alone, and reads only the train split."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from evaluation.small_parents import digits

from umd_bench.config.errors import UserError
from umd_bench.data.open_data import open_pack
from umd_bench.data.packs.manifest import data_root
from umd_bench.data.packs.pack import Pack, Split
from umd_bench.evaluation.extractors.classifiers import training
from umd_bench.evaluation.extractors.classifiers.network import Classifier, accuracy, build_classifier
from umd_bench.evaluation.extractors.classifiers.recipes import RECIPES, WEIGHTS, recipe_for
from umd_bench.evaluation.extractors.classifiers.training import train_classifier

SHORT = dataclasses.replace(RECIPES["digits_cnn"], epochs=5)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.slow
def test_training_repeats_to_the_bit_with_any_global_random_state() -> None:
    torch.manual_seed(1)
    first = train_classifier(SHORT, digits())
    torch.manual_seed(2)
    before = torch.get_rng_state()
    assert same(first, train_classifier(SHORT, digits()))
    assert torch.equal(before, torch.get_rng_state())
    assert not same(first, train_classifier(SHORT, digits(), seed=1))


def test_training_never_reads_the_test_split(monkeypatch: pytest.MonkeyPatch) -> None:
    split = Pack.split

    def guarded(pack: Pack, name: str) -> Split:
        assert name == "train"
        return split(pack, name)

    monkeypatch.setattr(Pack, "split", guarded)
    train_classifier(SHORT, digits())


def test_five_epochs_are_enough_to_learn_digits() -> None:
    model = build_classifier(SHORT, train_classifier(SHORT, digits()))
    assert accuracy(model, digits().split("test")) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_a_committed_classifier_says_which_images_it_was_trained_on(name: str) -> None:
    """Either today's training images, or an earlier version's training images, which contain today's validation images."""
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
    augmented = training._augmented(images, recipe, np.random.default_rng(0))
    assert {image[0].numpy().tobytes() for image in augmented} == {image.tobytes() for image in expected}


@pytest.mark.parametrize("name", [name for name, recipe in RECIPES.items() if recipe.channels == 1])
def test_a_recipe_by_rule_has_the_shape_of_the_committed_classifier(name: str) -> None:
    committed = RECIPES[name]
    made = recipe_for(committed.data, size=committed.size, channels=1, classes=committed.classes, n_train=50_000)
    shape = ("widths", "dim", "classes", "batch")
    assert {field: getattr(made, field) for field in shape} == {field: getattr(committed, field) for field in shape}


@pytest.mark.parametrize("size", [1, 2, 4, 7, 8, 20, 28, 32, 64, 96, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_recipe_by_rule_makes_a_network_for_any_size(size: int, channels: int) -> None:
    recipe = recipe_for("mine", size=size, channels=channels, classes=5, n_train=300)
    features, logits = Classifier(recipe).eval()(torch.zeros(2, channels, size, size))
    assert (features.shape, logits.shape) == ((2, recipe.dim), (2, 5))
    assert size < 8 or 2 <= size // 2 ** len(recipe.widths) <= 7
    assert recipe.widths[-1:] in ((), (64 if channels == 1 else 128,))


def test_small_sets_are_seen_more_often_in_smaller_batches() -> None:
    recipes = [recipe_for("mine", size=32, channels=3, classes=5, n_train=n) for n in (100, 1_000, 50_000, 1_000_000)]
    assert [(recipe.epochs, recipe.batch) for recipe in recipes] == [(60, 8), (60, 62), (12, 128), (5, 128)]
    assert recipe_for("mine", size=32, channels=3, classes=5, n_train=100, epochs=7).epochs == 7


def test_a_pack_that_no_classifier_can_be_trained_on_is_refused() -> None:
    with pytest.raises(UserError, match="holds 1x8x8 images of digits: expected 1x32x32 images of fashion_mnist"):
        train_classifier(RECIPES["fashion_cnn"], digits())
    with pytest.raises(UserError, match="digits has one class: a classifier needs at least 2"):
        train_classifier(dataclasses.replace(SHORT, classes=1), digits())
    with pytest.raises(UserError, match=r"digits has [0-9]+ training images: a classifier needs at least 2000, two batches"):
        train_classifier(dataclasses.replace(SHORT, batch=1_000), digits())
