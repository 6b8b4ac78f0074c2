"""IDX files, raw or gzipped, give the same images; a one-line error names an incomplete, wrong or missing file."""

from __future__ import annotations

import gzip
import hashlib
import struct
import urllib.request
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest

from umd_bench.config.errors import UserError
from umd_bench.data.builtin import fashion_mnist


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Four small IDX files in place of the published ones: two training images of each of six classes, four test images."""
    rng = np.random.default_rng(0)
    made = {}
    for (images, labels), n in zip(fashion_mnist.SPLIT_FILES.values(), (12, 4), strict=True):
        made[images] = idx(rng.integers(0, 256, (n, 28, 28), dtype=np.uint8))
        made[labels] = idx(np.arange(n, dtype=np.uint8) % 6)
    monkeypatch.setattr(fashion_mnist, "PUBLISHED", {name: hashlib.sha256(file).hexdigest() for name, file in made.items()})
    monkeypatch.setattr(fashion_mnist, "N_VALIDATION_PER_CLASS", 1)
    monkeypatch.delenv(fashion_mnist.VARIABLE, raising=False)
    return made


def write(folder: Path, files: dict[str, bytes], *, packed: bool) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / f"{name}{'.gz' * packed}").write_bytes(gzip.compress(content) if packed else content)
    return folder


def test_raw_and_gzipped_files_give_the_same_images(tmp_path: Path, files: dict[str, bytes]) -> None:
    raw = fashion_mnist.read(write(tmp_path / "raw", files, packed=False))
    packed = fashion_mnist.read(write(tmp_path / "gz", files, packed=True))
    for split in ("train", "validation", "test"):
        for ours, theirs in zip(raw[split], packed[split], strict=True):
            assert np.array_equal(ours, theirs)


def test_images_are_padded_by_two_zeros_and_otherwise_unchanged(tmp_path: Path, files: dict[str, bytes]) -> None:
    images, labels = fashion_mnist.read(write(tmp_path, files, packed=True))["test"]
    inner = fashion_mnist.parse_idx(files["t10k-images-idx3-ubyte"], "here")
    assert images.shape == (4, 1, 32, 32)
    assert np.array_equal(images[:, 0, 2:-2, 2:-2], inner)
    assert images.sum() == inner.astype(np.int64).sum()
    assert labels.tolist() == list(range(4))


def test_the_validation_split_is_the_same_number_of_training_images_of_each_class(
    tmp_path: Path, files: dict[str, bytes]
) -> None:
    splits = fashion_mnist.read(write(tmp_path, files, packed=True))
    published = fashion_mnist.parse_idx(files["train-images-idx3-ubyte"], "here")
    for split in ("train", "validation"):
        assert sorted(splits[split][1].tolist()) == list(range(6))
    inner = [images[:, 0, 2:-2, 2:-2] for images in (splits["train"][0], splits["validation"][0])]
    assert {image.tobytes() for part in inner for image in part} == {image.tobytes() for image in published}


def test_the_variable_names_the_folder(tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(fashion_mnist.VARIABLE, str(write(tmp_path, files, packed=True)))
    assert len(fashion_mnist.read(None)["test"][1]) == 4


def test_an_explicit_folder_comes_before_the_variable(
    tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(fashion_mnist.VARIABLE, str(tmp_path / "nothing here"))
    assert len(fashion_mnist.read(write(tmp_path / "files", files, packed=True))["test"][1]) == 4


def test_a_given_folder_without_the_files_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds neither train-images-idx3-ubyte nor"):
        fashion_mnist.read(tmp_path)


@pytest.mark.parametrize("cut", [2, 10, 100])
def test_the_error_for_an_incomplete_idx_file_names_it(cut: int, tmp_path: Path, files: dict[str, bytes]) -> None:
    files["t10k-images-idx3-ubyte"] = files["t10k-images-idx3-ubyte"][:cut]
    with pytest.raises(UserError, match=r"t10k-images-idx3-ubyte (is not an IDX|holds 84 values)"):
        fashion_mnist.read(write(tmp_path, files, packed=False))


def test_the_error_for_an_incomplete_gz_file_names_it(tmp_path: Path, files: dict[str, bytes]) -> None:
    cut = write(tmp_path, files, packed=True) / "train-labels-idx1-ubyte.gz"
    cut.write_bytes(cut.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"train-labels-idx1-ubyte\.gz cannot be read"):
        fashion_mnist.read(tmp_path)


def test_bytes_after_the_declared_ones_are_refused() -> None:
    with pytest.raises(UserError, match=r"here holds 5 values, but declares 4 \(4,\)"):
        fashion_mnist.parse_idx(idx(np.zeros(4, np.uint8)) + b"\0", "here")


def test_another_data_set_under_the_same_names_is_refused(tmp_path: Path, files: dict[str, bytes]) -> None:
    files["train-labels-idx1-ubyte"] = idx(np.arange(6, dtype=np.uint8)[::-1])
    with pytest.raises(UserError, match="is not Fashion-MNIST's train-labels"):
        fashion_mnist.read(write(tmp_path, files, packed=True))


def test_the_error_for_a_failed_download_names_three_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(url: str, timeout: float) -> None:
        raise URLError("no route")

    monkeypatch.delenv(fashion_mnist.VARIABLE, raising=False)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path)
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(UserError, match=r"no route.*dataset-fashion-mnist.*UMD_BENCH_FASHION_MNIST.*allow the download"):
        fashion_mnist.read(None)


def test_a_download_is_read_like_a_file(tmp_path: Path, files: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path, files, packed=True)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setattr(urllib.request, "urlopen", lambda url, timeout: (folder / url.rsplit("/", 1)[1]).open("rb"))
    assert len(fashion_mnist.read(None)["train"][1]) == 6
