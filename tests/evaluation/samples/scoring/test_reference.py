"""Reference statistics: cached ones equal computed ones, nothing stale or damaged is ever used, nothing NaN is ever cached."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluation.small_parents import digits
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.data.packs.pack import Pack, Split
from umd_bench.evaluation.extractors.contract import Extractor, Features
from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.metrics.frechet import Gaussian, frechet_distance
from umd_bench.evaluation.samples.scoring import reference
from umd_bench.evaluation.samples.scoring.reference import floor_distance, reference_of, split_features


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """A copy, so that each test has its own folder of statistics."""
    return dataclasses.replace(digits(), path=Path(shutil.copytree(digits().path, tmp_path / "digits-v1")))


@pytest.fixture
def seen() -> list[Tensor]:
    """The batches of images that went through the extractor."""
    return []


@pytest.fixture
def extractor(seen: list[Tensor]) -> Extractor:
    """The digits classifier with made-up spatial features: the images' first five pixels."""
    loaded = load_extractor("digits_cnn")

    def network(images: Tensor, spatial: bool) -> Features:
        seen.append(images)
        features = loaded.network(images, spatial)
        return dataclasses.replace(features, spatial=images.flatten(1)[:, :5].float() if spatial else None)

    return dataclasses.replace(loaded, network=network, spatial_dim=5)


def extracted(seen: list[Tensor]) -> int:
    """How many images went through the extractor since the last call."""
    n = sum(map(len, seen))
    seen.clear()
    return n


def equal(a: Gaussian, b: Gaussian) -> bool:
    return a.count == b.count and torch.equal(a.mean, b.mean) and torch.equal(a.factor, b.factor)


def files(pack: Pack) -> set[str]:
    folder = pack.path.parent / "statistics"
    return {path.name for path in folder.iterdir()} if folder.exists() else set()


def pixels(pack: Pack, split: str) -> Tensor:
    return torch.from_numpy(np.array(pack.split(split).images))


def test_cached_statistics_equal_the_computed_ones_to_the_bit(pack: Pack, extractor: Extractor, seen: list[Tensor]) -> None:
    first, again = (reference_of(pack, "test", extractor) for _ in range(2))
    assert extracted(seen) == 500
    assert equal(first.gaussian, again.gaussian)
    assert first.features is not None
    assert again.features is not None
    assert np.array_equal(first.features, again.features)
    features = extractor.features(pixels(pack, "test")).pooled
    assert frechet_distance(first.gaussian, Gaussian.of(features)) < 1e-9
    assert np.array_equal(first.features, features.numpy())
    assert (first.label, first.n, first.spatial) == ("digits test", 500, None)


def test_spatial_statistics_are_added_to_those_cached_before(pack: Pack, extractor: Extractor, seen: list[Tensor]) -> None:
    plain = reference_of(pack, "test", extractor)
    both, again = (reference_of(pack, "test", extractor, spatial=True) for _ in range(2))
    assert extracted(seen) == 2 * 500
    assert equal(plain.gaussian, both.gaussian)
    assert both.spatial is not None
    assert again.spatial is not None
    assert equal(both.spatial, again.spatial)
    expected = Gaussian.of(pixels(pack, "test").flatten(1)[:, :5].float())
    assert frechet_distance(both.spatial, expected) < 1e-9
    assert plain.hash == both.hash


def test_rows_of_a_long_split_are_a_fixed_subset_in_order(
    pack: Pack, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "SUBSET", 700)
    subset = reference_of(pack, "train", extractor)
    assert subset.features is not None
    assert subset.features.shape == (700, 64)
    assert isinstance(subset.features, np.memmap)
    assert not subset.features.flags.writeable
    every = split_features(pack, "train", extractor)
    places = [int(np.flatnonzero((every == row).all(1))[0]) for row in subset.features]
    assert places == sorted(set(places))
    assert places != list(range(700))
    assert subset.n == subset.gaussian.count == 1047


def test_features_of_every_image_are_computed_once_and_memory_mapped(
    pack: Pack, extractor: Extractor, seen: list[Tensor]
) -> None:
    first, again = (split_features(pack, "train", extractor) for _ in range(2))
    assert extracted(seen) == 1047
    assert isinstance(again, np.memmap)
    assert (again.shape, again.dtype) == ((1047, 64), np.float32)
    assert np.array_equal(first, again)
    np.testing.assert_allclose(again, extractor.features(pixels(pack, "train")).pooled, rtol=1e-4, atol=1e-5)


def test_a_reference_from_cached_rows_is_the_same(pack: Pack, extractor: Extractor, seen: list[Tensor]) -> None:
    streamed = reference_of(pack, "train", extractor)
    shutil.rmtree(pack.path.parent / "statistics")
    split_features(pack, "train", extractor)
    extracted(seen)
    read = reference_of(pack, "train", extractor)
    assert extracted(seen) == 0
    assert equal(streamed.gaussian, read.gaussian)
    assert streamed.features is not None
    assert read.features is not None
    assert np.array_equal(streamed.features, read.features)


def test_each_split_extractor_data_set_resize_and_number_of_threads_has_its_own_statistics(
    pack: Pack, extractor: Extractor, seen: list[Tensor]
) -> None:
    other = dataclasses.replace(pack, manifest=pack.manifest.model_copy(update={"digest": "other"}))
    cases = [
        (pack, "test", extractor),
        (pack, "train", extractor),
        (pack, "test", dataclasses.replace(extractor, hash="0" * 64)),
        (pack, "test", dataclasses.replace(extractor, resize="bicubic to 9 px")),
        (other, "test", extractor),
    ]
    hashes = set()
    for of, split, by in cases:
        hashes.add(reference_of(of, split, by).hash)
        assert extracted(seen) == len(pack.split(split))
        split_features(of, split, by)
        assert extracted(seen) == len(pack.split(split))
    assert len(hashes) == len(cases)
    torch.set_num_threads(2)
    try:
        # Computed again, because the last bits of the statistics may differ; `hash` covers the inputs only, so it is the same.
        assert reference_of(pack, "test", extractor).hash in hashes
    finally:
        torch.set_num_threads(1)
    assert extracted(seen) == 500


@pytest.mark.parametrize("kind", [".cache", ".npy"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_file_is_computed_again(pack: Pack, extractor: Extractor, seen: list[Tensor], damage: str, kind: str) -> None:
    first = reference_of(pack, "test", extractor)
    (path,) = (pack.path.parent / "statistics").glob(f"*{kind}")
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.unlink()  # `first.features` may be a memory map of this file: writing into it would change them too
    path.write_bytes(
        {
            "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "cut": whole[:middle],
            "empty": b"",
            "foreign": b"x" * 1000,
        }[damage]
    )
    again = reference_of(pack, "test", extractor)
    assert extracted(seen) == 1000
    assert equal(first.gaussian, again.gaussian)
    assert first.features is not None
    assert again.features is not None
    assert np.array_equal(first.features, again.features)
    assert path.read_bytes() == whole


def test_without_write_access_to_the_data_root_statistics_are_computed_in_every_call(
    pack: Pack, extractor: Extractor, seen: list[Tensor]
) -> None:
    (pack.path.parent / "statistics").write_text("a file where the folder would be")
    first, again = (reference_of(pack, "test", extractor) for _ in range(2))
    assert equal(first.gaussian, again.gaussian)
    assert first.features is not None
    assert first.features.shape == (500, 64)
    assert extracted(seen) == 1000
    assert split_features(pack, "test", extractor).shape == (500, 64)


@pytest.mark.parametrize("make", [reference_of, split_features, lambda *a: floor_distance(a[0], a[1], 100, a[2], real="test")])
def test_nan_features_raise_one_error_and_are_not_cached(pack: Pack, extractor: Extractor, make: object) -> None:
    def network(images: Tensor, spatial: bool) -> Features:
        features = extractor.network(images, spatial)
        features.pooled[-1, 3] = torch.nan
        return features

    with pytest.raises(UserError, match=r"digits_cnn gives NaN or infinite features for 1 of \d+ images"):
        make(pack, "train", dataclasses.replace(extractor, network=network))  # type: ignore[operator]
    assert files(pack) == set()


@pytest.mark.parametrize(
    ("images", "message"),
    [(np.zeros((9, 1, 9, 9), np.uint8), "uint8 images of shape"), (np.zeros((9, 1, 8, 8), np.float32), "float32 images")],
)
def test_images_of_a_wrong_size_or_dtype_raise_one_error_and_are_not_cached(
    pack: Pack, extractor: Extractor, monkeypatch: pytest.MonkeyPatch, images: np.ndarray, message: str
) -> None:
    monkeypatch.setattr(Pack, "split", lambda self, name: Split(images, np.zeros(9, np.int64)))
    for make in (reference_of, split_features):
        with pytest.raises(UserError, match=f"digits_cnn does not take {message}"):
            make(pack, "test", extractor)
    assert files(pack) == set()


def test_floor_is_the_mean_distance_of_disjoint_sets_of_the_other_split(
    pack: Pack, extractor: Extractor, seen: list[Tensor]
) -> None:
    floor = floor_distance(pack, "test", 500, extractor, real="train")
    assert (floor.n, floor.draws) == (500, 2)
    assert extracted(seen) == 500 + 2 * 500  # the reference, and two sets of train images
    assert 0.1 < floor.distance < 2
    assert floor_distance(pack, "test", 500, extractor, real="train") == floor
    assert extracted(seen) == 0


def test_floor_sets_share_no_image_and_come_from_the_other_split(pack: Pack, extractor: Extractor, seen: list[Tensor]) -> None:
    reference_of(pack, "test", extractor)
    seen.clear()
    floor = floor_distance(pack, "test", 200, extractor, real="train")
    assert floor.draws == 5
    drawn = [image.numpy().tobytes() for images in seen for image in images]
    assert len(drawn) == 1000
    assert Counter(drawn) <= Counter(image.tobytes() for image in pack.split("train").images)


def test_floor_of_more_samples_than_images_takes_all_images_and_reports_their_number(pack: Pack, extractor: Extractor) -> None:
    floor = floor_distance(pack, "train", 5000, extractor, real="test")
    assert (floor.n, floor.draws) == (500, 1)
    held_out = floor_distance(pack, "train", 5000, extractor, real="validation")
    assert (held_out.n, held_out.draws) == (250, 1)


def test_floors_of_the_reference_train_are_stored_for_each_held_out_split(pack: Pack, extractor: Extractor) -> None:
    test, validation = (floor_distance(pack, "train", 200, extractor, real=split).distance for split in ("test", "validation"))
    assert test != validation
    assert floor_distance(pack, "train", 200, extractor, real="test").distance == test


def test_floor_falls_with_n(pack: Pack, extractor: Extractor) -> None:
    assert (
        floor_distance(pack, "test", 60, extractor, real="train").distance
        > 2 * floor_distance(pack, "test", 600, extractor, real="train").distance
    )
