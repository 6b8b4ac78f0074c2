"""A data set's own classifier is trained once, described and found below the data root, and refused if it does not fit."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from data.grey_pack import pack_of_digits

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.data import DataConfig
from umd_bench.data.datasets import DataFacts, data_facts
from umd_bench.data.open_data import open_pack
from umd_bench.evaluation.extractors.classifiers import training
from umd_bench.evaluation.extractors.classifiers.network import accuracy, build_classifier
from umd_bench.evaluation.extractors.classifiers.recipes import RECIPES
from umd_bench.evaluation.extractors.classifiers.training import (
    TrainedExtractor,
    TrainOptions,
    train_classifier,
    train_extractor,
)
from umd_bench.evaluation.extractors.listing import list_extractors
from umd_bench.evaluation.extractors.registry import check_extractor, extractor_for, load_extractor, require_weights

pytestmark = pytest.mark.slow  # every test waits for a training
SHORT = TrainOptions(size=8, epochs=6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainedExtractor]:
    """A data root with the pack ``mine`` and its classifier."""
    root = tmp_path_factory.mktemp("packs")
    pack_of_digits(root)
    return root, train_extractor("mine", root, SHORT)


@pytest.fixture
def copied(trained: tuple[Path, TrainedExtractor], tmp_path: Path) -> Path:
    """A data root without the pack, and with a copy of the classifier that a test may damage."""
    for file in (trained[0] / "extractors").iterdir():
        target = tmp_path / "extractors" / file.name
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(file.read_bytes())
    return tmp_path


MINE = DataFacts("mine", 8, 1, 10)


def test_the_description_holds_recipe_accuracies_hash_and_digest(trained: tuple[Path, TrainedExtractor]) -> None:
    root, made = trained
    described = json.loads((root / "extractors" / "mine_cnn-8.json").read_text())
    pack = open_pack("mine", root, size=8)
    weights = (root / "extractors" / "mine_cnn-8.safetensors").read_bytes()
    model = build_classifier(made.description.recipe, safetensors.torch.load(weights))
    assert (made.name, made.existed) == ("mine_cnn", False)
    assert described["sha256"] == made.description.sha256 == load_extractor("mine_cnn", images=pack).hash
    assert described["data_digest"] == pack.manifest.digest
    assert described["command"] == "umd-bench extractor train mine --size 8 --epochs 6"
    assert described["recipe"]["widths"] == [32, 64]
    assert (described["train_images"], described["recipe"]["epochs"]) == (len(pack.split("train")), 6)
    for split in ("validation", "test"):
        assert described[f"{split}_accuracy"] == accuracy(model, pack.split(split)) > 0.6


def test_the_loaded_classifier_gives_features_class_scores_and_its_accuracy(trained: tuple[Path, TrainedExtractor]) -> None:
    root, made = trained
    extractor = load_extractor("mine_cnn", images=open_pack("mine", root, size=8))
    out = extractor.features(torch.zeros(3, 1, 8, 8, dtype=torch.uint8))
    assert out.logits is not None
    assert (out.pooled.shape, out.logits.shape) == ((3, 64), (3, 10))
    assert (extractor.data, extractor.accuracy) == ("mine", made.description.test_accuracy)
    assert extractor.metric_name("accuracy") == "accuracy_mine_cnn"


def test_the_classifier_is_the_data_sets_extractor_and_is_listed(
    trained: tuple[Path, TrainedExtractor], tmp_path: Path
) -> None:
    root, made = trained
    assert extractor_for(MINE, root) == "mine_cnn"
    assert extractor_for(MINE, tmp_path) == "inception-v3-compat"
    check_extractor("mine_cnn", MINE, path="p", root=root)
    require_weights("mine_cnn", path="p", size=8, root=root)
    (line,) = [entry for entry in list_extractors(root) if entry.name == "mine_cnn"]
    assert (line.takes, line.weights, line.faulty) == ("1 x 8 x 8", made.description.sha256, False)
    assert line.data == f"mine ({made.description.test_accuracy:.1%} right)"
    with pytest.raises(FieldError, match="p = 'mine_cnn' is not accepted: it reads images of mine, not of digits"):
        check_extractor("mine_cnn", data_facts(DataConfig(name="digits")), path="p", root=root)
    with pytest.raises(FieldError, match="it is not trained yet: `umd-bench extractor train mine --size 16` trains it"):
        check_extractor("mine_cnn", dataclasses.replace(MINE, size=16), path="p", root=root)


def test_training_again_returns_the_existing_classifier_and_refuses_other_options(
    trained: tuple[Path, TrainedExtractor], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, made = trained
    monkeypatch.setattr(training, "train_classifier", None)
    again = train_extractor("mine_cnn", root, SHORT)
    assert (again.existed, again.description) == (True, made.description)
    with pytest.raises(
        UserError, match=r"was trained with epochs 6, not 7: leave the option out, or remove .*mine_cnn-8\.json"
    ):
        train_extractor("mine", root, TrainOptions(size=8, epochs=7))


def test_damaged_or_missing_files_are_refused(copied: Path) -> None:
    weights = copied / "extractors" / "mine_cnn-8.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=r"mine_cnn-8\.safetensors is not what its description says"):
        require_weights("mine_cnn", path="p", size=8, root=copied)
    weights.unlink()
    with pytest.raises(UserError, match="the weights of mine_cnn cannot be read"):
        require_weights("mine_cnn", path="p", size=8, root=copied)
    for text in ("{", "{}", '{"sha256": "a"}'):
        weights.with_suffix(".json").write_text(text)
        with pytest.raises(UserError, match=r"mine_cnn-8\.json does not describe the extractor mine_cnn: remove it, and train"):
            check_extractor("mine_cnn", MINE, path="p", root=copied)
    (line,) = [entry for entry in list_extractors(copied) if entry.name == "mine_cnn"]
    assert line.faulty


def test_a_classifier_of_other_images_than_the_pack_has_is_refused(copied: Path) -> None:
    pack = pack_of_digits(copied, shift=1)
    with pytest.raises(UserError, match=r"mine_cnn was trained on another mine \(digest .*\) than the one in .*mine-8-v2"):
        load_extractor("mine_cnn", images=pack)
    with pytest.raises(UserError, match="mine_cnn was trained on another mine"):
        train_extractor("mine", copied, SHORT)


def test_a_name_without_a_size_needs_a_single_classifier(copied: Path) -> None:
    weights = copied / "extractors" / "mine_cnn-8.safetensors"
    described = json.loads(weights.with_suffix(".json").read_text())
    require_weights("mine_cnn", path="p", root=copied)
    described["recipe"]["size"] = 16
    (copied / "extractors" / "mine_cnn-16.json").write_text(json.dumps(described))
    with pytest.raises(FieldError, match="p = 'mine_cnn' is not accepted: it is trained at 8, 16 pixels"):
        require_weights("mine_cnn", path="p", root=copied)


@pytest.mark.parametrize("what", ["digits", "digits_cnn"])
def test_a_classifier_of_the_package_is_trained_again_only_into_a_folder(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        UserError, match="digits_cnn comes with the package and needs no training: --out FOLDER trains it again into another"
    ):
        train_extractor(what, tmp_path, TrainOptions())
    with pytest.raises(FieldError, match="epochs = 3 is not accepted: digits_cnn is trained with a fixed recipe"):
        train_extractor(what, tmp_path, TrainOptions(epochs=3), out=tmp_path)
    short = dataclasses.replace(RECIPES["digits_cnn"], epochs=1)
    monkeypatch.setitem(RECIPES, "digits_cnn", short)
    made = train_extractor(what, tmp_path / "packs", TrainOptions(), out=tmp_path / "out")
    assert made.weights == tmp_path / "out" / "digits_cnn.safetensors"
    state = train_classifier(short, open_pack("digits", tmp_path / "packs"))
    written = safetensors.torch.load_file(made.weights)
    assert all(torch.equal(written[name], state[name]) for name in state)


def test_data_sets_that_cannot_have_a_classifier_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match=r"data\.name = 'nothing' is not accepted"):
        train_extractor("nothing", tmp_path, SHORT)
    with pytest.raises(UserError, match=r"cifar10 cannot be used: its packed folder .* is missing"):
        train_extractor("cifar10", tmp_path, TrainOptions(size=32))
    pack_of_digits(tmp_path, "emoji")
    with pytest.raises(FieldError, match="emoji_cnn is the classifier of emoji64: pack emoji under another name"):
        train_extractor("emoji", tmp_path, SHORT)
