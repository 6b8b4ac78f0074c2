"""The table of extractors: one conformance test over its rows; weights that are not the published ones are refused."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch
from evaluation.small_parents import digits

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.data import DataConfig
from umd_bench.data.datasets import DATASETS, DataFacts, data_facts
from umd_bench.evaluation.extractors.classifiers import recipes
from umd_bench.evaluation.extractors.classifiers.network import accuracy, build_classifier
from umd_bench.evaluation.extractors.classifiers.recipes import RECIPES, WEIGHTS
from umd_bench.evaluation.extractors.contract import INCEPTION, Features
from umd_bench.evaluation.extractors.registry import EXTRACTORS, check_extractor, extractor_for, load_extractor, require_weights

MEGABYTE = 1 << 20


# Inception's weights are not shipped; test_inception.py compares its facts with a network of random weights.
@pytest.mark.parametrize("name", sorted(EXTRACTORS.keys() - {INCEPTION}))
def test_a_loaded_extractor_has_the_facts_and_the_hash_of_its_row(name: str) -> None:
    row, extractor = EXTRACTORS[name], load_extractor(name)
    assert {field: getattr(extractor, field) for field in dataclasses.asdict(row.facts)} == dataclasses.asdict(row.facts)
    assert extractor.hash == row.hash_weights()
    assert extractor.accuracy == row.accuracy()
    assert (extractor.accuracy is None) == (row.facts.data is None)
    require_weights(name, path="p")
    out = extractor.features(torch.zeros(2, *(side or 64 for side in row.facts.shape), dtype=torch.uint8))
    assert out.pooled.shape == (2, row.facts.dim)
    assert (out.logits is not None) == row.facts.has_logits


@pytest.mark.parametrize("name", RECIPES)
def test_a_classifier_gives_finite_features_and_logits_of_its_stated_widths(name: str) -> None:
    facts, extractor = EXTRACTORS[name].facts, load_extractor(name)
    images = torch.randint(0, 256, (5, *facts.shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out = extractor.features(images)
    features, logits = out.pooled, out.logits
    assert logits is not None
    assert out.spatial is None
    assert (extractor.dim, extractor.has_logits, extractor.spatial_dim) == (facts.dim, True, None)
    assert (features.shape, features.dtype) == ((5, facts.dim), torch.float32)
    assert (logits.shape, logits.dtype) == ((5, len(DATASETS[facts.data].class_names)), torch.float32)
    assert features.isfinite().all()
    assert logits.isfinite().all()
    one_by_one = torch.cat([extractor.features(image[None]).pooled for image in images])
    torch.testing.assert_close(one_by_one, features, rtol=1e-4, atol=1e-5)  # nothing depends on the batch
    assert extractor.name == name
    assert facts.shape == (DATASETS[facts.data].channels, DATASETS[facts.data].size, DATASETS[facts.data].size)


@pytest.mark.parametrize("name", RECIPES)
def test_committed_weights_are_small_and_described(name: str) -> None:
    described = json.loads((WEIGHTS / f"{name}.json").read_text())
    assert (WEIGHTS / f"{name}.safetensors").stat().st_size <= MEGABYTE
    assert described.keys() >= {"sha256", "command", "test_accuracy", "trained_on", "data_digest", "torch"}
    assert load_extractor(name).hash == described["sha256"]


def test_digits_extractor_is_as_accurate_as_its_description_says() -> None:
    described = json.loads((WEIGHTS / "digits_cnn.json").read_text())
    model = build_classifier(RECIPES["digits_cnn"], safetensors.torch.load_file(WEIGHTS / "digits_cnn.safetensors"))
    assert accuracy(model, digits().split("test")) == pytest.approx(described["test_accuracy"], abs=0.002)
    assert described["test_accuracy"] > 0.985


def test_changed_or_missing_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in WEIGHTS.glob("digits_cnn.*"):
        shutil.copy(file, tmp_path)
    monkeypatch.setattr(recipes, "WEIGHTS", tmp_path)
    load_extractor("digits_cnn")
    weights = tmp_path / "digits_cnn.safetensors"
    damaged = bytearray(weights.read_bytes())
    damaged[-1] ^= 1
    weights.write_bytes(damaged)
    with pytest.raises(UserError, match="is not the extractor that scores were made with"):
        load_extractor("digits_cnn")
    weights.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        load_extractor("digits_cnn")
    (tmp_path / "digits_cnn.json").write_text("{")
    with pytest.raises(UserError, match="cannot be read"):
        load_extractor("digits_cnn")


@pytest.mark.parametrize(
    "images",
    [
        torch.zeros(2, 1, 8, 8),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(2, 1, 16, 16, dtype=torch.uint8),
        torch.zeros(1, 8, 8, dtype=torch.uint8),
    ],
)
def test_images_of_another_type_or_shape_are_refused(images: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"digits_cnn does not take .* expected uint8 of shape \[B, 1, 8, 8\]"):
        load_extractor("digits_cnn").features(images)


def test_spatial_features_of_an_extractor_without_them_are_refused() -> None:
    with pytest.raises(UserError, match="digits_cnn has no spatial features: only inception-v3-compat has them"):
        load_extractor("digits_cnn").features(torch.zeros(2, 1, 8, 8, dtype=torch.uint8), spatial=True)


def test_features_use_full_precision_under_any_precision_setting() -> None:
    loaded, seen = load_extractor("digits_cnn"), []

    def now() -> tuple[object, ...]:
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.backends.cudnn.deterministic

    def network(images: torch.Tensor, spatial: bool) -> Features:
        seen.append(now())
        return loaded.network(images, spatial)

    outside = now()
    torch.set_float32_matmul_precision("high")
    try:
        dataclasses.replace(loaded, network=network).features(torch.zeros(2, 1, 8, 8, dtype=torch.uint8))
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [("highest", False, True)]
    assert now() == outside


LISTED = "expected one of contrast16_cnn, digits_cnn, efficientnet_lite0, emoji_cnn, fashion_cnn, inception-v3-compat"


def test_the_error_for_an_unknown_name_lists_the_valid_names() -> None:
    with pytest.raises(FieldError, match=rf"stages.generate.extractor = 'inception' is not accepted: {LISTED}, or timm:NAME"):
        load_extractor("inception")
    with pytest.raises(FieldError, match=rf"stages.x.extractor = 'inception' is not accepted: {LISTED}, or timm:NAME"):
        check_extractor("inception", facts("digits"), path="stages.x.extractor")


def facts(name: str, size: int | None = None, vae: str | None = None) -> DataFacts:
    return data_facts(DataConfig(name=name, size=size, vae=vae))


@pytest.mark.parametrize("channels", [1, 3])
def test_extractors_for_any_data_set_accept_colour_and_grey_pictures(channels: int) -> None:
    pictures = DataFacts("pets_of_mine", 32, channels, 2)
    assert extractor_for(pictures) == INCEPTION
    for name in (INCEPTION, "efficientnet_lite0", "timm:resnet50"):
        check_extractor(name, pictures, path="p")


def test_images_that_no_extractor_reads_are_refused_with_the_command_that_trains_one() -> None:
    odd = DataFacts("maps", 32, 2, 5)
    with pytest.raises(UserError, match="no extractor takes images of 2 channels, which maps has: `umd-bench extractor"):
        extractor_for(odd)
    how = "only maps_cnn could, which `umd-bench extractor train maps --size 32` trains"
    with pytest.raises(FieldError, match=f"it reads no images of 2 channels; {how}"):
        check_extractor("efficientnet_lite0", odd, path="p")
    with pytest.raises(FieldError, match="it reads images of digits, not of maps; only maps_cnn could"):
        check_extractor("digits_cnn", odd, path="p")


@pytest.mark.slow
def test_grey_images_give_the_features_of_the_same_images_in_rgb() -> None:
    extractor = load_extractor("efficientnet_lite0")
    grey = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(extractor.features(grey).pooled, extractor.features(grey.repeat(1, 3, 1, 1)).pooled)
    with pytest.raises(UserError, match=r"does not take uint8 images of shape \[3, 2, 32, 32\]"):
        extractor.features(grey.repeat(1, 2, 1, 1))


def test_an_extractor_of_another_data_set_is_refused_with_one_that_fits() -> None:
    check_extractor("digits_cnn", facts("digits"), path="p")
    fitting = "expected one of digits_cnn, efficientnet_lite0, inception-v3-compat, or timm:NAME"
    with pytest.raises(FieldError, match=f"reads images of fashion_mnist, not of digits; {fitting}"):
        check_extractor("fashion_cnn", facts("digits"), path="p")
    check_extractor("inception-v3-compat", facts("emoji64"), path="p")
    check_extractor("inception-v3-compat", facts("imagenet", 256, "sd_kl_f8"), path="p")
    imagenet = facts("imagenet", 64)
    listed = "expected one of efficientnet_lite0, inception-v3-compat, or timm:NAME"
    with pytest.raises(FieldError, match=f"reads images of digits, not of imagenet; {listed}"):
        check_extractor("digits_cnn", imagenet, path="p")
    for name in ("efficientnet_lite0", "timm:vit_large_patch14_dinov2.lvd142m", "timm:resnet50"):
        check_extractor(name, imagenet, path="p")
    with pytest.raises(FieldError, match=r"p = 'timm:resnet5' is not accepted: .*a model that timm has, such as timm:resnet50"):
        check_extractor("timm:resnet5", imagenet, path="p")


def test_every_data_set_that_can_be_read_has_an_extractor() -> None:
    read = [name for name, info in DATASETS.items() if info.read is not None]
    assert {name: EXTRACTORS[extractor_for(facts(name))].facts.data for name in read} == {name: name for name in read}
    assert extractor_for(facts("imagenet", 64)) == "inception-v3-compat"
