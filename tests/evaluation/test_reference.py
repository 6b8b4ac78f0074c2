"""Reference statistics: what is kept is what would be computed, and nothing stale or damaged is ever used."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from small_parents import digits

from umd_bench.data.pack import Pack
from umd_bench.evaluation import reference
from umd_bench.evaluation.extractors import Extractor, load_extractor
from umd_bench.evaluation.reference import floor_distance, reference_gaussian
from umd_bench.evaluation.statistics import Gaussian, frechet_distance


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    """A copy, so that its statistics lie in a folder of the test's own."""
    return dataclasses.replace(digits(), path=Path(shutil.copytree(digits().path, tmp_path / "digits-v1")))


@pytest.fixture
def extractor() -> Extractor:
    return load_extractor("digits_cnn")


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the sets of images that were really sent through the extractor."""
    sizes: list[int] = []
    compute = reference._gaussian

    def counted(images: np.ndarray, extractor: Extractor) -> Gaussian:
        sizes.append(len(images))
        return compute(images, extractor)

    monkeypatch.setattr(reference, "_gaussian", counted)
    return sizes


def equal(a: Gaussian, b: Gaussian) -> bool:
    return a.count == b.count and torch.equal(a.mean, b.mean) and torch.equal(a.factor, b.factor)


def test_kept_statistics_are_the_computed_ones_to_the_bit(pack: Pack, extractor: Extractor, extracted: list[int]) -> None:
    first, again = (reference_gaussian(pack, "test", extractor) for _ in range(2))
    assert extracted == [500]
    assert equal(first, again)
    features, _ = extractor.features(torch.from_numpy(np.array(pack.split("test").images)))
    assert frechet_distance(first, Gaussian.of(features)) < 1e-9


def test_another_split_extractor_data_or_number_of_threads_is_never_mistaken(
    pack: Pack, extractor: Extractor, extracted: list[int]
) -> None:
    reference_gaussian(pack, "test", extractor)
    reference_gaussian(pack, "train", extractor)
    reference_gaussian(pack, "test", dataclasses.replace(extractor, hash="0" * 64))
    other = dataclasses.replace(pack, manifest=pack.manifest.model_copy(update={"digest": "other"}))
    reference_gaussian(other, "test", extractor)
    torch.set_num_threads(2)
    try:
        reference_gaussian(pack, "test", extractor)
    finally:
        torch.set_num_threads(1)
    assert extracted == [500, 1297, 500, 500, 500]


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_file_is_made_anew(pack: Pack, extractor: Extractor, extracted: list[int], damage: str) -> None:
    first = reference_gaussian(pack, "test", extractor)
    (path,) = (pack.path.parent / "statistics").iterdir()
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(
        {
            "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
            "cut": whole[:middle],
            "empty": b"",
            "foreign": b"x" * 1000,
        }[damage]
    )
    assert equal(first, reference_gaussian(pack, "test", extractor))
    assert extracted == [500, 500]
    assert path.read_bytes() == whole


def test_a_data_root_that_cannot_be_written_only_costs_time(pack: Pack, extractor: Extractor, extracted: list[int]) -> None:
    (pack.path.parent / "statistics").write_text("a file where the folder would be")
    assert equal(*(reference_gaussian(pack, "test", extractor) for _ in range(2)))
    assert extracted == [500, 500]


def test_floor_is_the_mean_distance_of_disjoint_sets_of_the_other_split(
    pack: Pack, extractor: Extractor, extracted: list[int]
) -> None:
    floor = floor_distance(pack, "test", 500, extractor)
    assert (floor.n, floor.draws) == (500, 2)
    assert extracted == [500, 500, 500]  # the reference, and two sets of train images
    assert 0.1 < floor.distance < 2
    assert floor_distance(pack, "test", 500, extractor) == floor
    assert extracted == [500, 500, 500]


def test_floor_sets_share_no_image_and_come_from_the_other_split(
    pack: Pack, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    sets: list[list[bytes]] = []
    compute = reference._gaussian

    def kept(images: np.ndarray, extractor: Extractor) -> Gaussian:
        sets.append([image.tobytes() for image in images])
        return compute(images, extractor)

    monkeypatch.setattr(reference, "_gaussian", kept)
    floor = floor_distance(pack, "test", 200, extractor)
    assert floor.draws == 5
    drawn = [image for images in sets[1:] for image in images]
    assert len(drawn) == 1000
    assert Counter(drawn) <= Counter(image.tobytes() for image in pack.split("train").images)


def test_floor_of_more_samples_than_images_takes_all_and_says_so(pack: Pack, extractor: Extractor) -> None:
    floor = floor_distance(pack, "train", 5000, extractor)
    assert (floor.n, floor.draws) == (500, 1)


def test_floor_falls_with_n(pack: Pack, extractor: Extractor) -> None:
    assert floor_distance(pack, "test", 60, extractor).distance > 2 * floor_distance(pack, "test", 600, extractor).distance
