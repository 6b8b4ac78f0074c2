"""Splits of a pack and its verification: damage is reported with the file, and nothing is repaired silently."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from umd_bench.config.errors import UserError
from umd_bench.data.packs.manifest import Manifest, data_root, read_manifest
from umd_bench.data.packs.pack import Pack, verify
from umd_bench.data.packs.row_source import rows_from_arrays
from umd_bench.data.packs.writer import write_pack


@pytest.fixture
def packed(tmp_path: Path) -> Pack:
    """Six training and four test images of 4x4 pixels in two classes."""
    draft = Manifest(
        name="tiny", version=1, size=4, channels=3, counts={}, shards={}, class_names=("even", "odd"), licence="none",
        sha256={}, digest="",
    )  # fmt: skip
    rng = np.random.default_rng(0)
    splits = {
        split: rows_from_arrays(rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8), np.arange(n, dtype=np.int64) % 2)
        for split, n in (("train", 6), ("test", 4))
    }
    folder = tmp_path / "tiny-v1.2"
    write_pack(folder, draft, splits, inputs="generated")
    return Pack(folder, read_manifest(folder))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("file", ["train-images-00000.npy", "test-labels.npy"])
def test_verify_names_the_bad_file(damage: Callable[[Path], None], file: str, packed: Pack) -> None:
    damage(packed.path / file)
    with pytest.raises(UserError, match=f"{file} .*remove the folder .*tiny-v1.2 to have it packed again"):
        verify(packed)


def test_verify_passes_an_undamaged_pack(packed: Pack) -> None:
    verify(packed)


def test_opening_an_incomplete_file_is_a_user_error(packed: Pack) -> None:
    cut(packed.path / "train-images-00000.npy")
    with pytest.raises(UserError, match=r"train-images-00000\.npy cannot be read"):
        packed.split("train")


def test_opening_a_file_of_another_shape_is_a_user_error(packed: Pack) -> None:
    shutil.copy(packed.path / "test-images-00000.npy", packed.path / "train-images-00000.npy")
    with pytest.raises(UserError, match=r"holds uint8 \(4, 3, 4, 4\), not uint8 \(6, 3, 4, 4\)"):
        packed.split("train")


def test_the_error_for_an_unknown_split_lists_the_known(packed: Pack) -> None:
    with pytest.raises(UserError, match="no split 'validation': expected one of test, train"):
        packed.split("validation")


def test_a_manifest_is_immutable(packed: Pack) -> None:
    with pytest.raises(ValueError, match="frozen"):
        packed.manifest.version = 3  # type: ignore[misc]


def test_the_data_root_is_the_variable_or_below_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UMD_BENCH_DATA", "~/packs")
    assert data_root() == Path.home() / "packs"
    monkeypatch.delenv("UMD_BENCH_DATA")
    assert data_root() == Path.home() / ".cache" / "umd-bench" / "data"
