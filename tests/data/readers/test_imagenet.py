"""ImageNet gives the same pack from folders and from tar files, and missing labels are reported."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from data.pictures import jpeg, tar_of, write
from scipy.io import savemat

from umd_bench.config.errors import UserError
from umd_bench.data.datasets import DATASETS
from umd_bench.data.packing.images import PackOptions, pack_data
from umd_bench.data.readers.imagenet import read_imagenet, tar_members
from umd_bench.data.readers.pictures import FileRange

WNIDS = ("n01440764", "n01443537", "n02084071")
NUMBERS = {"n02084071": 1, "n01440764": 2, "n01443537": 3}  # the devkit's class numbers, not in alphabetical order
TRAIN = {f"{wnid}/{wnid}_{i}.JPEG": jpeg(100 * c + i) for c, wnid in enumerate(WNIDS) for i in range(40)}
VALIDATION = {f"ILSVRC2012_val_{i:08d}": WNIDS[i % 3] for i in range(1, 10)}  # picture -> class
PICTURES = {name: jpeg(1000 + i) for i, name in enumerate(VALIDATION)}


@pytest.fixture(autouse=True)
def _three_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "imagenet", replace(DATASETS["imagenet"], n_classes=3))


def train_folder(root: Path) -> None:
    for name, content in TRAIN.items():
        write(root / "train" / name, content)


def train_tar(root: Path) -> None:
    inner = {
        f"{wnid}.tar": tar_of({name.split("/")[1]: content for name, content in TRAIN.items() if name.startswith(wnid)})
        for wnid in reversed(WNIDS)
    }
    write(root / "ILSVRC2012_img_train.tar", tar_of(inner))


def val_class_folders(root: Path) -> None:
    for name, wnid in VALIDATION.items():
        write(root / "val" / wnid / f"{name}.JPEG", PICTURES[name])


def val_flat(root: Path) -> None:
    for name, content in PICTURES.items():
        write(root / "val" / f"{name}.JPEG", content)


def val_tar(root: Path) -> None:
    write(root / "ILSVRC2012_img_val.tar", tar_of({f"{name}.JPEG": content for name, content in PICTURES.items()}))


def solution(root: Path) -> None:
    lines = [f"{name},{wnid} 1 2 3 4 {wnid} 5 6 7 8 " for name, wnid in reversed(VALIDATION.items())]
    (root / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]) + "\n")


def devkit(root: Path) -> None:
    kit = root / "ILSVRC2012_devkit_t12" / "data"
    kit.mkdir(parents=True)
    synsets = np.zeros((len(NUMBERS) + 1, 1), [("ILSVRC2012_ID", object), ("WNID", object), ("words", object)])
    for row, (wnid, number) in enumerate([*NUMBERS.items(), ("n00001740", 4)]):
        synsets[row, 0] = (float(number), wnid, "a synset")
    savemat(kit / "meta.mat", {"synsets": synsets})
    numbers = [NUMBERS[wnid] for wnid in VALIDATION.values()]
    (kit / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{n}\n" for n in numbers))


def devkit_tar(root: Path) -> None:
    devkit(root)
    with tarfile.open(root / "ILSVRC2012_devkit_t12.tar.gz", "w:gz") as tar:
        tar.add(root / "ILSVRC2012_devkit_t12", "ILSVRC2012_devkit_t12")
    for path in sorted((root / "ILSVRC2012_devkit_t12").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "ILSVRC2012_devkit_t12").rmdir()


def pack(root: Path, out: Path) -> str:
    return pack_data("imagenet", root, out, PackOptions(size=8, workers=1)).manifest.digest


LAYOUTS = {
    "folders": (train_folder, val_class_folders),
    "tars, Kaggle's labels": (train_tar, val_tar, solution),
    "tars, devkit": (train_tar, val_tar, devkit),
    "tars, packed devkit": (train_tar, val_tar, devkit_tar),
    "folder and flat validation": (train_folder, val_flat, solution),
}


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "folders"])
def test_every_layout_gives_the_same_pack(layout: str, tmp_path: Path) -> None:
    for name in ("folders", layout):
        (tmp_path / name).mkdir()
        for make in LAYOUTS[name]:
            make(tmp_path / name)
    assert pack(tmp_path / layout, tmp_path / "a") == pack(tmp_path / "folders", tmp_path / "b")


def test_kaggles_layout_is_found_below_its_root(tmp_path: Path) -> None:
    inner = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    train_folder(inner)
    val_flat(inner)
    solution(tmp_path)
    assert len(read_imagenet(tmp_path, None).splits["test"]) == 9


def test_one_percent_of_the_training_pictures_is_the_validation_split_by_name(tmp_path: Path) -> None:
    train_folder(tmp_path)
    val_class_folders(tmp_path)
    found = read_imagenet(tmp_path, None)
    assert {name: len(pictures) for name, pictures in found.splits.items()} == {"train": 118, "validation": 2, "test": 9}
    assert set(found.splits["train"].names) | set(found.splits["validation"].names) == set(TRAIN)
    assert found.class_names == WNIDS
    expected = [WNIDS.index(VALIDATION[name.split(".")[0]]) for name in found.splits["test"].names]
    assert found.splits["test"].labels.tolist() == expected


def test_the_validation_share_gives_imagenets_counts() -> None:
    n = 1_281_167
    counts = DATASETS["imagenet"].counts
    assert counts["train"] == int(n * 0.99)
    assert counts["train"] + counts["validation"] == n


def test_members_of_tar_files_are_read_without_unpacking(tmp_path: Path) -> None:
    train_tar(tmp_path)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    found = read_imagenet_train(path)
    whole = path.read_bytes()
    for name, where in found.items():
        assert where.length is not None
        assert whole[where.offset : where.offset + where.length] == TRAIN[name]
    assert set(found) == set(TRAIN)


def read_imagenet_train(path: Path) -> dict[str, FileRange]:
    return {
        f"{outer.removesuffix('.tar')}/{name}": where
        for outer, inner in tar_members(path)
        for name, where in tar_members(path, inner.offset, inner.length)
    }


@pytest.mark.parametrize("at", [0.3, 0.6, 0.9])
def test_an_incomplete_tar_file_is_refused(at: float, tmp_path: Path) -> None:
    train_tar(tmp_path)
    val_class_folders(tmp_path)
    path = tmp_path / "ILSVRC2012_img_train.tar"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * at)])
    with pytest.raises(UserError, match=r"ILSVRC2012_img_train\.tar .*copy it again|differs in classes|has 3 classes"):
        pack(tmp_path, tmp_path / "out")


def test_a_file_that_is_no_tar_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "ILSVRC2012_img_train.tar", b"<html>not found</html>" * 100)
    with pytest.raises(UserError, match=r"img_train\.tar cannot be read as a tar file"):
        read_imagenet(tmp_path, None)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ((), r"holds neither train/ nor ILSVRC2012_img_train\.tar"),
        ((train_folder,), r"holds neither val/ nor ILSVRC2012_img_val\.tar"),
        ((train_folder, val_tar), r"has no labels of the validation pictures: add LOC_val_solution\.csv, ILSVRC2012_devkit"),
        ((train_folder, val_flat), "has no labels of the validation pictures"),
    ],
)
def test_the_error_names_the_missing_file(made: tuple[Callable[[Path], None], ...], message: str, tmp_path: Path) -> None:
    for make in made:
        make(tmp_path)
    with pytest.raises(UserError, match=message):
        read_imagenet(tmp_path, None)


def test_a_validation_picture_without_a_label_is_refused(tmp_path: Path) -> None:
    train_folder(tmp_path)
    val_flat(tmp_path)
    solution(tmp_path)
    write(tmp_path / "val" / "ILSVRC2012_val_00000099.JPEG", jpeg(0))
    with pytest.raises(UserError, match=r"ILSVRC2012_val_00000099\.JPEG has no label among the training classes"):
        read_imagenet(tmp_path, None)


def test_a_subset_of_imagenet_needs_another_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "imagenet", replace(DATASETS["imagenet"], n_classes=1000))
    train_folder(tmp_path / "raw")
    val_class_folders(tmp_path / "raw")
    with pytest.raises(UserError, match="imagenet has 1000 classes, and the files hold 3: pack a part of it under a name"):
        pack(tmp_path / "raw", tmp_path / "out")
    own = pack_data("imagenet3", tmp_path / "raw", tmp_path / "out", PackOptions(size=8, workers=1))
    assert own.manifest.counts == {"train": 108, "validation": 12, "test": 9}
