"""torchvision's data sets: small ones in its layouts are packed; errors for missing files name the expected folder."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets
from data.pictures import class_folders, jpeg, pixels, write
from scipy.io import savemat

from umd_bench.config.errors import UserError
from umd_bench.data.datasets import DATASETS
from umd_bench.data.packing.images import PackOptions, pack_data
from umd_bench.data.readers.pictures import decode
from umd_bench.data.readers.torchvision_sets import READERS

Patch = pytest.MonkeyPatch


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def cifar(root: Path, patch: Patch, kind: str, folder: str, files: dict[str, list[str]], labels: str, meta: str) -> None:
    for split, names in files.items():
        for n, name in enumerate(names):
            rows = np.stack([pixels(10 * n + i, 32, 32).transpose(2, 0, 1).reshape(-1) for i in range(4)])
            write(root / folder / name, pickle.dumps({"data": rows, labels: [0, 1, 1, 0]}))
        listed = [[name, md5(root / folder / name)] for name in names]
        patch.setattr(getattr(torchvision.datasets, kind), f"{split}_list", listed)
    write(root / folder / meta, pickle.dumps({"label_names": ["cat", "dog"], "fine_label_names": ["cat", "dog"]}))
    key = "label_names" if labels == "labels" else "fine_label_names"
    patch.setattr(getattr(torchvision.datasets, kind), "meta", {"filename": meta, "key": key, "md5": md5(root / folder / meta)})


def cifar10(root: Path, patch: Patch) -> None:
    files = {"train": ["data_batch_1", "data_batch_2"], "test": ["test_batch"]}
    cifar(root, patch, "CIFAR10", "cifar-10-batches-py", files, "labels", "batches.meta")


def cifar100(root: Path, patch: Patch) -> None:
    cifar(root, patch, "CIFAR100", "cifar-100-python", {"train": ["train"], "test": ["test"]}, "fine_labels", "meta")


def stl10(root: Path, patch: Patch) -> None:
    base = root / "stl10_binary"
    for split in ("train", "test"):
        images = np.stack([pixels(i, 96, 96).transpose(2, 1, 0) for i in range(4)])  # STL-10 is stored column by column
        write(base / f"{split}_X.bin", images.tobytes())
        write(base / f"{split}_y.bin", np.array([1, 2, 2, 1], np.uint8).tobytes())
        listed = [[f"{split}_{part}.bin", md5(base / f"{split}_{part}.bin")] for part in "Xy"]
        patch.setattr(torchvision.datasets.STL10, f"{split}_list", listed)
    (base / "class_names.txt").write_text("cat\ndog\n")
    (base / "fold_indices.txt").write_text("0 1\n")


def dtd(root: Path, patch: Patch) -> None:
    class_folders(root / "dtd" / "dtd" / "images", {"banded": 6, "dotted": 6})
    for n, split in enumerate(("train", "val", "test")):
        names = [f"{name}/{name}_{i}.jpg\n" for name in ("banded", "dotted") for i in (2 * n, 2 * n + 1)]
        write(root / "dtd" / "dtd" / "labels" / f"{split}1.txt", "".join(names).encode())


def oxford_pets(root: Path, patch: Patch) -> None:
    base = root / "oxford-iiit-pet"
    for split, ids in (("trainval", (1, 2)), ("test", (3,))):
        lines = [f"{name}_{i} {label} 1 1\n" for label, name in ((1, "Abyssinian"), (2, "yorkshire_terrier")) for i in ids]
        write(base / "annotations" / f"{split}.txt", "".join(lines).encode())
        for n, line in enumerate(lines):
            write(base / "images" / f"{line.split()[0]}.jpg", jpeg(n + 10 * len(ids)))


def flowers102(root: Path, patch: Patch) -> None:
    base = root / "flowers-102"
    base.mkdir()
    for i in range(1, 7):
        write(base / "jpg" / f"image_{i:05d}.jpg", jpeg(i))
    savemat(base / "imagelabels.mat", {"labels": np.array([1, 2, 1, 2, 1, 2])})
    savemat(base / "setid.mat", {"trnid": np.array([1, 2]), "valid": np.array([3, 4]), "tstid": np.array([5, 6])})
    kind = torchvision.datasets.Flowers102
    files = {key: (name, md5(base / name)) for key, name in (("label", "imagelabels.mat"), ("setid", "setid.mat"))}
    patch.setattr(kind, "_file_dict", kind._file_dict | files)
    patch.setattr(kind, "classes", ["cat", "dog"])


def food101(root: Path, patch: Patch) -> None:
    base = root / "food-101"
    class_folders(base / "images", {"pho": 4, "pie": 4})
    for split, ids in (("train", (0, 1, 2)), ("test", (3,))):
        write(base / "meta" / f"{split}.json", json.dumps({c: [f"{c}/{c}_{i}" for i in ids] for c in ("pho", "pie")}).encode())


# Numbers of pictures by split in the small layouts above.
LAYOUTS: dict[str, tuple[Callable[[Path, Patch], None], dict[str, int]]] = {
    "cifar10": (cifar10, {"train": 6, "validation": 2, "test": 4}),
    "cifar100": (cifar100, {"train": 2, "validation": 2, "test": 4}),
    "stl10": (stl10, {"train": 2, "validation": 2, "test": 4}),
    "dtd": (dtd, {"train": 4, "validation": 4, "test": 4}),
    "oxford_pets": (oxford_pets, {"train": 2, "validation": 2, "test": 2}),
    "flowers102": (flowers102, {"train": 2, "validation": 2, "test": 2}),
    "food101": (food101, {"train": 4, "validation": 2, "test": 2}),
}


def test_every_torchvision_reader_is_tested() -> None:
    assert set(LAYOUTS) == set(READERS)


@pytest.mark.parametrize("name", LAYOUTS)
def test_torchvisions_layout_is_packed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make, counts = LAYOUTS[name]
    published = (
        counts if DATASETS[name].version == 1 else {"train": counts["train"] + counts["validation"], "test": counts["test"]}
    )
    monkeypatch.setitem(DATASETS, name, replace(DATASETS[name], n_classes=2, counts=published))
    (tmp_path / "raw").mkdir()
    make(tmp_path / "raw", monkeypatch)
    packed = pack_data(name, tmp_path / "raw", tmp_path, PackOptions(size=16, workers=1))
    assert packed.manifest.counts == counts
    assert not packed.manifest.notes, "counts differ from the publisher's, even with the validation split back in train"
    assert len(packed.manifest.class_names) == 2
    assert packed.manifest.licence == DATASETS[name].licence
    for split in counts:
        assert set(packed.split(split).labels.tolist()) == {0, 1}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_error_for_missing_files_names_the_folder_that_torchvision_expects(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"torchvision does not find .* below .*: it expects a complete {tmp_path}/\w.*"):
        pack_data(name, tmp_path, tmp_path, PackOptions(size=16, workers=1))


@pytest.mark.parametrize(("name", "side"), [("cifar10", 32), ("stl10", 96)])
def test_arrays_have_the_right_orientation(name: str, side: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS[name][0](tmp_path, monkeypatch)
    pictures = READERS[name](tmp_path, None).splits["test"]
    found = decode(pictures.load(2), side, "antialiased")
    assert np.array_equal(found, pixels(2, side, side).transpose(2, 0, 1))


def test_the_error_for_a_listed_picture_that_is_missing_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    food101(tmp_path, monkeypatch)
    (tmp_path / "food-101" / "images" / "pie" / "pie_3.jpg").unlink()
    with pytest.raises(UserError, match=r"pie_3\.jpg cannot be opened .*, although the data set lists it"):
        READERS["food101"](tmp_path, None)
