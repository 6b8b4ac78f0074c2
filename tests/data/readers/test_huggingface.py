"""Hugging Face data sets on disk: columns by type, splits by name, without using the network or writing a cache."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data.pictures import jpeg, pixels
from PIL import Image

from umd_bench.config.errors import FieldError, UserError
from umd_bench.data.packing.images import PackOptions, pack_data
from umd_bench.data.readers.huggingface import is_huggingface, read_huggingface
from umd_bench.data.readers.pictures import decode

datasets = pytest.importorskip("datasets")
NAMES = ["cat", "dog"]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("the network was used"))
    datasets.disable_progress_bars()


def table(n: int, start: int = 0, **columns: Any) -> Any:
    images = [{"bytes": jpeg(start + i), "path": None} for i in range(n)]
    kinds = {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)} | {k: v[0] for k, v in columns.items()}
    values = {"image": images, "label": [i % 2 for i in range(n)]} | {k: v[1] for k, v in columns.items()}
    return datasets.Dataset.from_dict(values, features=datasets.Features(kinds))


def saved(root: Path) -> None:
    datasets.DatasetDict(train=table(10), test=table(4, 100)).save_to_disk(str(root))


def parquet(root: Path) -> None:
    (root / "data").mkdir(parents=True)
    whole = table(10)
    whole.select(range(6)).to_parquet(str(root / "data" / "train-00000-of-00002.parquet"), batch_size=4)
    whole.select(range(6, 10)).to_parquet(str(root / "data" / "train-00001-of-00002.parquet"))
    table(4, 100).to_parquet(str(root / "data" / "test-00000-of-00001.parquet"))


def arrow(root: Path) -> None:
    for split, rows in (("train", table(10)), ("test", table(4, 100))):
        rows.save_to_disk(str(root / "saved" / split))
        (file,) = (root / "saved" / split).glob("*.arrow")
        file.rename(root / f"pets-{split}.arrow")


@pytest.mark.parametrize("make", [saved, parquet, arrow])
def test_every_layout_gives_the_same_pictures(make: Callable[[Path], None], tmp_path: Path) -> None:
    make(tmp_path / "raw")
    before = sorted(str(path) for path in tmp_path.rglob("*"))
    packed = pack_data("pets", tmp_path / "raw", tmp_path / "out", PackOptions(size=8, workers=1))
    assert packed.manifest.class_names == ("cat", "dog")
    assert packed.manifest.counts == {"train": 8, "validation": 2, "test": 4}
    for split, labels in (("train", [0, 1] * 4), ("validation", [0, 1])):
        assert sorted(packed.split(split).labels.tolist()) == sorted(labels)
    expected = {decode(jpeg(i), 8, "antialiased").tobytes(): i % 2 for i in range(10)}  # type: ignore[union-attr]
    found = {
        image.tobytes(): label
        for split in ("train", "validation")
        for image, label in zip(packed.split(split).images, packed.split(split).labels.tolist(), strict=True)
    }
    assert found == expected
    after = sorted(str(path) for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "out"))
    assert after == before  # nothing was written next to the raw files


def test_a_data_set_without_splits_is_divided_and_its_rows_are_read_in_order(tmp_path: Path) -> None:
    table(20).to_parquet(str(tmp_path / "pets.parquet"), batch_size=3)
    found = read_huggingface(tmp_path, 0.3)
    assert np.bincount(found.splits["test"].labels).tolist() == [3, 3]
    numbers = {split: [int(name.split()[-1]) for name in pictures.names] for split, pictures in found.splits.items()}
    assert sorted(number for split in numbers.values() for number in split) == list(range(20))
    for split, pictures in found.splits.items():
        assert [pictures.load(i) for i in range(len(pictures))] == [jpeg(number) for number in numbers[split]]


def test_validation_becomes_the_test_split_if_the_test_split_has_no_labels(tmp_path: Path) -> None:
    unlabelled = table(4).remove_columns("label").add_column("label", [-1] * 4)
    unlabelled = unlabelled.cast_column("label", datasets.ClassLabel(names=NAMES))
    datasets.DatasetDict(train=table(6), validation=table(4), test=unlabelled).save_to_disk(str(tmp_path))
    found = read_huggingface(tmp_path, None)
    assert {split: len(pictures) for split, pictures in found.splits.items()} == {"train": 4, "validation": 2, "test": 4}
    assert found.options["test"] == "the publisher's validation split"
    assert found.options["unlabelled"] == "left out: test"


def test_ambiguous_columns_are_chosen_by_options(tmp_path: Path) -> None:
    coarse = (datasets.ClassLabel(names=["animal"]), [0] * 8)
    table(8, coarse=coarse).save_to_disk(str(tmp_path))
    with pytest.raises(UserError, match=r"the column of the label cannot be found \(label, coarse are of type ClassLabel\)"):
        read_huggingface(tmp_path, None)
    assert read_huggingface(tmp_path, None, label_column="label").class_names == ("cat", "dog")
    with pytest.raises(FieldError, match=r"label_column = 'breed' is not accepted: expected one of coarse, image, label"):
        read_huggingface(tmp_path, None, label_column="breed")


def test_values_of_a_named_column_become_classes(tmp_path: Path) -> None:
    names = (datasets.Value("string"), ["b", "a", "c"] * 4)
    table(12, breed=names).remove_columns("label").save_to_disk(str(tmp_path))
    with pytest.raises(UserError, match=r"none is of type ClassLabel.*--label-column"):
        read_huggingface(tmp_path, None)
    found = read_huggingface(tmp_path, 0.5, label_column="breed")
    assert found.class_names == ("a", "b", "c")


def test_rows_without_a_label_or_picture_are_reported(tmp_path: Path) -> None:
    rows = table(6)
    holes = [None if i == 2 else {"bytes": jpeg(i), "path": None} for i in range(6)]
    rows = datasets.Dataset.from_dict({"image": holes, "label": rows["label"][:]}, features=rows.features)
    rows.save_to_disk(str(tmp_path / "hole"))
    with pytest.raises(UserError, match=r"train row 2 cannot be read \(it is empty\)"):
        pack_data("pets", tmp_path / "hole", tmp_path / "out", PackOptions(size=8, workers=1))
    unlabelled = datasets.Dataset.from_dict({"image": holes, "label": [0, None] * 3}, features=rows.features)
    unlabelled.save_to_disk(str(tmp_path / "unlabelled"))
    with pytest.raises(UserError, match="3 rows of its train split have no label in 'label'"):
        read_huggingface(tmp_path / "unlabelled", None)


def test_pictures_outside_the_table_are_read_from_their_files(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(pixels(5, 8, 8)).save(path)
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    cells = [{"bytes": None, "path": str(path)}] * 8
    datasets.Dataset.from_dict({"image": cells, "label": [0, 1] * 4}, features=kinds).to_parquet(str(tmp_path / "x.parquet"))
    pictures = read_huggingface(tmp_path, 0.5).splits["train"]
    assert np.array_equal(decode(pictures.load(0), 8, "antialiased"), pixels(5, 8, 8).transpose(2, 0, 1))


def test_a_broken_data_set_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "train.parquet").write_bytes(b"no parquet")
    assert is_huggingface(tmp_path)
    with pytest.raises(UserError, match="cannot be read as a Hugging Face data set"):
        read_huggingface(tmp_path, None)
    assert not is_huggingface(tmp_path / "nowhere")
