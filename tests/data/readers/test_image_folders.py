"""Image folders in each layout: classes, splits, and a division that depends on names only."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data.pictures import class_folders, jpeg, write
from scipy.io import savemat

from umd_bench.config.errors import FieldError, UserError
from umd_bench.data.datasets import DATASETS
from umd_bench.data.packing.images import PackOptions, pack_data
from umd_bench.data.readers.image_folders import read_folder, read_imagenet_v2, read_stanford_dogs, read_uc_merced


def test_classes_without_splits_are_divided_evenly_and_reproducibly(tmp_path: Path) -> None:
    class_folders(tmp_path, {"b": 10, "a": 5, "c": 2})
    found = read_folder(tmp_path, None)
    assert found.class_names == ("a", "b", "c")
    assert np.bincount(found.splits["test"].labels).tolist() == [1, 2, 1]
    assert np.bincount(found.splits["validation"].labels, minlength=3).tolist() == [1, 1, 0]
    assert np.bincount(found.splits["train"].labels).tolist() == [3, 7, 1]
    assert len({name for pictures in found.splits.values() for name in pictures.names}) == 17
    assert found.options == {
        "test": "0.2 of each class, drawn by name with seed 0",
        "validation": "of train, 0.1 of each class, drawn by name with seed 0",
    }
    for name, label in zip(found.splits["train"].names, found.splits["train"].labels.tolist(), strict=True):
        assert name.split("/")[0] == found.class_names[label]
    class_folders(tmp_path / "elsewhere", {"b": 10, "a": 5, "c": 2}, start=50)
    again = read_folder(tmp_path / "elsewhere", 0.2)
    assert [pictures.names for pictures in again.splits.values()] == [pictures.names for pictures in found.splits.values()]
    more = read_folder(tmp_path / "elsewhere", 0.4).splits["test"]
    assert set(found.splits["test"].names) < set(more.names)


@pytest.mark.parametrize(
    ("folders", "counts", "chosen"),
    [
        (("train", "test"), [2, 1, 4], {"validation"}),
        (("train", "val"), [2, 1, 4], {"test", "validation"}),
        (("Train", "Test", "validation"), [3, 5, 4], set()),
    ],
)
def test_existing_splits_are_used_and_a_missing_validation_split_is_taken_from_train(
    folders: tuple[str, ...], counts: list[int], chosen: set[str], tmp_path: Path
) -> None:
    for n, folder in enumerate(folders):
        class_folders(tmp_path / folder, {"a": n + 1, "b": 2})
    found = read_folder(tmp_path, None)
    assert list(found.splits) == ["train", "validation", "test"]
    assert [len(pictures) for pictures in found.splits.values()] == counts
    assert set(found.options) == chosen
    if "test" in chosen:
        assert found.options["test"] == "the publisher's validation split"


def test_a_single_training_image_of_a_class_stays_in_train(tmp_path: Path) -> None:
    for split, counts in (("train", {"a": 1, "b": 20}), ("test", {"a": 1, "b": 1})):
        class_folders(tmp_path / split, counts)
    found = read_folder(tmp_path, None)
    assert np.bincount(found.splits["train"].labels).tolist() == [1, 18]
    assert np.bincount(found.splits["validation"].labels).tolist() == [0, 2]
    assert sorted(found.splits["train"].names) == list(found.splits["train"].names)


def test_pictures_in_subfolders_are_listed_and_other_files_are_not(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 1, "b": 4})
    write(tmp_path / "a" / "deep" / "er" / "x.JPEG", jpeg(9))
    for name in ("a/notes.txt", "a/.hidden.jpg", ".git/x.jpg", "readme.md"):
        write(tmp_path / name, b"no picture")
    found = read_folder(tmp_path, 0.5)
    assert found.class_names == ("a", "b")
    assert sum(map(len, found.splits.values())) == 6


def test_inputs_change_when_a_file_is_added_removed_or_resized(tmp_path: Path) -> None:
    class_folders(tmp_path, {"a": 3, "b": 3})
    before = read_folder(tmp_path, None).inputs
    assert read_folder(tmp_path, None).inputs == before
    write(tmp_path / "a" / "new.jpg", jpeg(1))
    grown = read_folder(tmp_path, None).inputs
    assert grown != before
    (tmp_path / "a" / "new.jpg").unlink()
    assert read_folder(tmp_path, None).inputs == before
    write(tmp_path / "a" / "a_0.jpg", jpeg(1) + b"more")
    assert read_folder(tmp_path, None).inputs != before


@pytest.mark.parametrize(
    ("files", "share", "message"),
    [
        ([], None, "holds no folders: expected one for each class"),
        (["a/1.jpg", "b/x.txt"], None, r"b holds no image: expected \.bmp"),
        (["a/1.jpg", "b/1.jpg", "b/2.jpg"], None, r"a class has one image \(a/1\.jpg\): expected at least two"),
        (["train/a/1.jpg", "test/b/1.jpg"], None, r"test and train|train and test differ in classes \(a, b\)"),
        (["train/a/1.jpg", "a/1.jpg"], None, "holds train and also a: expected either splits or classes"),
        (["train/a/1.jpg", "test/a/1.jpg"], 0.5, r"test_share = 0\.5 .* has its own splits \(test, train\)"),
        (["train/a/1.jpg", "test/a/1.jpg"], None, "every class has a single training image: expected two of some class"),
        (["test/a/1.jpg"], None, "no training split among test"),
        (["train/1.jpg", "test/a/1.jpg"], None, "train holds no folders|differ in classes"),
        (["train/a/1.jpg", "val/a/1.jpg", "valid/a/1.jpg"], None, "mean the same"),
    ],
)
def test_a_folder_in_another_layout_gives_a_one_line_error(
    files: list[str], share: float | None, message: str, tmp_path: Path
) -> None:
    for name in files:
        write(tmp_path / name, jpeg(0))
    with pytest.raises(UserError, match=message):
        read_folder(tmp_path, share)


def test_stanford_dogs_have_the_publishers_splits(tmp_path: Path) -> None:
    class_folders(tmp_path / "Images", {"n1-Pug": 3, "n2-Saluki": 3})
    lists = {
        "train": ["n1-Pug/n1-Pug_0.jpg", "n2-Saluki/n2-Saluki_2.jpg", "n1-Pug/n1-Pug_2.jpg"],
        "test": ["n2-Saluki/n2-Saluki_0.jpg"],
    }
    for split, names in lists.items():
        cells = np.empty((len(names), 1), object)
        cells[:, 0] = names
        savemat(tmp_path / f"{split}_list.mat", {"file_list": cells})
    found = read_stanford_dogs(tmp_path, None)
    assert found.class_names == ("Pug", "Saluki")
    assert sorted([*found.splits["train"].names, *found.splits["validation"].names]) == sorted(lists["train"])
    assert found.splits["test"].labels.tolist() == [1]
    (tmp_path / "Images" / "n2-Saluki" / "n2-Saluki_0.jpg").unlink()
    with pytest.raises(UserError, match=r"n2-Saluki_0\.jpg is missing: test_list\.mat lists it \(1 missing in all\)"):
        read_stanford_dogs(tmp_path, None)
    (tmp_path / "train_list.mat").unlink()
    with pytest.raises(UserError, match=r"train_list\.mat is missing: stanford_dogs needs"):
        read_stanford_dogs(tmp_path, None)


def test_the_classes_of_uc_merced_are_in_images_or_in_the_root(tmp_path: Path) -> None:
    files = class_folders(tmp_path / "Images", {"agricultural": 5, "beach": 5}, "tif")
    found = read_uc_merced(tmp_path, None)
    assert found.class_names == ("agricultural", "beach")
    assert len(files) == 10
    assert read_uc_merced(tmp_path / "Images", None).splits["test"].names == found.splits["test"].names


def test_the_classes_of_imagenet_v2_are_sorted_as_numbers(tmp_path: Path) -> None:
    root = tmp_path / "imagenetv2-matched-frequency-format-val"
    class_folders(root, {str(i): 10 for i in (0, 1, 2, 10)}, "jpeg")
    found = read_imagenet_v2(tmp_path, None)
    assert found.class_names == ("0", "1", "2", "10")
    assert np.bincount(found.splits["test"].labels).tolist() == [2, 2, 2, 2]
    tens = [n for n, y in zip(found.splits["train"].names, found.splits["train"].labels.tolist(), strict=True) if y == 3]
    assert {name.split("/")[0] for name in tens} == {"10"}
    write(root / "ten" / "x.jpeg", jpeg(0))
    with pytest.raises(UserError, match="ten is not a class of imagenet_v2: expected folders 0 to 999"):
        read_imagenet_v2(tmp_path, None)


def test_a_known_data_set_with_other_counts_is_packed_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "uc_merced", replace(DATASETS["uc_merced"], n_classes=2))
    class_folders(tmp_path / "raw", {"agricultural": 5, "beach": 5}, "tif")
    lines: list[str] = []
    packed = pack_data("uc_merced", tmp_path / "raw", tmp_path, PackOptions(size=8, workers=1), listed=lines.append)
    assert packed.path.name == "uc_merced-8-v2.2"
    assert lines == ["6 train, 2 validation, 2 test, 2 classes (not those published: 2,100 one split)"]
    assert packed.manifest.notes["counts"] == "not those published: 2,100 one split"
    with pytest.raises(FieldError, match="test_share"):
        pack_data("uc_merced", tmp_path / "raw", tmp_path, PackOptions(size=8, test_share=2.0))
