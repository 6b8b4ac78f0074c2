"""Built-in data sets match the table's facts, their splits never change and share no image, and errors say what is expected."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.data import OWN_SIZES, DataConfig
from umd_bench.data.builtin import emoji64, fashion_mnist
from umd_bench.data.builtin.digits import read as read_digits
from umd_bench.data.datasets import DATASETS, data_facts, dataset_info
from umd_bench.data.open_data import open_data, open_pack
from umd_bench.data.packs.manifest import data_root
from umd_bench.data.packs.pack import verify

# If a digest changes, every result on the data set changes; raise the data set's version too.
DIGESTS = {
    "digits": "765741c96148f8b5d88bf567aa77201127a5f51083b2b1f263be5874b4e49bc8",
    "fashion_mnist": "7b697da3e5c4021fec0fa64938d2b6366e122a00c5d14dd546fef1fe4216abe4",
}


def skip_without_raw_files(name: str) -> None:
    if name == "fashion_mnist" and not fashion_mnist.DEBIAN_FOLDER.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed: its 70,000 images are not packed here")
    if name == "emoji64":
        try:
            emoji64.locate(None)
        except UserError as missing:
            pytest.skip(f"nothing is rendered here: {missing}")


READ = [name for name, facts in DATASETS.items() if facts.read is not None]


def slow_if_packed_long(names: Iterable[str]) -> list[Any]:
    """The names as parameters; those that take seconds to pack are marked slow."""
    return [pytest.param(name, marks=pytest.mark.slow if name in ("emoji64", "fashion_mnist") else ()) for name in names]


@pytest.mark.parametrize("name", slow_if_packed_long(READ))
def test_the_splits_of_a_built_in_data_set_match_its_facts(name: str) -> None:
    skip_without_raw_files(name)
    facts = dataset_info(name)
    packed = open_pack(name, data_root())
    verify(packed)
    assert facts.name == name
    assert packed.manifest.class_names == facts.class_names
    assert list(packed.manifest.counts) == ["train", "validation", "test"]
    for split_name in packed.manifest.counts:
        split = packed.split(split_name)
        assert split.images.shape == (len(split), facts.channels, facts.size, facts.size)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert set(np.unique(split.labels)) == set(range(len(facts.class_names)))


@pytest.mark.parametrize("name", slow_if_packed_long(["digits", "contrast16", "emoji64"]))
def test_no_image_is_in_two_splits(name: str) -> None:
    """Fashion-MNIST is not tested: some of its publisher's images are equal."""
    skip_without_raw_files(name)
    packed = open_pack(name, data_root())
    images = [{image.tobytes() for image in packed.split(split).images} for split in packed.manifest.counts]
    assert sum(map(len, images)) == len(set.union(*images))


@pytest.mark.parametrize("name", slow_if_packed_long(DIGESTS))
def test_the_digests_of_built_in_data_sets_never_change(name: str) -> None:
    skip_without_raw_files(name)
    assert open_pack(name, data_root()).manifest.digest == DIGESTS[name]


def test_digits_have_fifty_test_images_and_twenty_five_validation_images_of_each_class() -> None:
    splits = read_digits(None)
    assert len(splits["train"][1]) == 1047
    assert np.bincount(splits["test"][1]).tolist() == [50] * 10
    assert np.bincount(splits["validation"][1]).tolist() == [25] * 10


def test_digits_have_the_test_images_of_the_version_without_a_validation_split() -> None:
    """Results on the test splits of versions 1 and 2 are therefore of the same images. The hashes were taken of version 1."""
    test = read_digits(None)["test"]
    assert [hashlib.sha256(array.tobytes()).hexdigest()[:12] for array in test] == ["128653794950", "40e9c4c800c5"]


def test_digits_have_seventeen_grey_levels_over_the_full_range() -> None:
    levels = np.unique(read_digits(None)["train"][0])
    assert len(levels) == 17
    assert (levels[0], levels[-1]) == (0, 255)
    assert np.abs(levels - np.arange(17) * 255 / 16).max() <= 0.5


def test_digits_refuse_a_folder() -> None:
    with pytest.raises(UserError, match="come with scikit-learn"):
        read_digits(Path("/somewhere"))


def test_the_error_for_an_unknown_data_set_lists_the_known() -> None:
    with pytest.raises(
        FieldError, match=r"data\.name = 'mnist'.*cifar100, contrast16, digits, dtd, emoji64, fashion_mnist, .*imagenet, "
    ):
        dataset_info("mnist")


def test_importing_datasets_imports_no_library_that_reads_them() -> None:
    code = "import sys, umd_bench.data.datasets; sys.exit(bool({'sklearn', 'PIL', 'torchvision'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_facts_need_no_data_and_follow_the_size_and_the_vae() -> None:
    configs = [{"size": 64}, {"size": 256}, {"size": 256, "vae": "sd_kl_f8"}]
    facts = [data_facts(DataConfig(name="imagenet", **fields)) for fields in configs]
    assert [(f.size, f.channels, f.classes) for f in facts] == [(64, 3, 1000), (256, 3, 1000), (32, 4, 1000)]
    other = data_facts(DataConfig(name="imagenet", size=64, vae="any-f2c16"))
    assert (other.size, other.channels, other.vae) == (32, 16, "any-f2c16")
    digits = data_facts(DataConfig(name="digits"))
    assert (digits.size, digits.channels, digits.classes) == (8, 1, 10)


def test_own_sizes_are_those_of_the_built_in_data_sets() -> None:
    assert {name: facts.size for name, facts in DATASETS.items() if facts.size is not None} == OWN_SIZES


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "imagenet"}, r"data\.size = None is not accepted: images of imagenet have no size of their own"),
        (
            {"name": "imagenet", "size": 64, "vae": "vq"},
            r"data\.vae = 'vq' is not accepted: expected one of sd-vae-ft-ema, .*, or a name that ends in -f<factor>c",
        ),
        ({"name": "imagenet", "size": 100, "vae": "sd_kl_f8"}, r"data\.size = 100 .* multiple of 8"),
        ({"name": "digits", "vae": "sd_kl_f8"}, r"data\.vae = 'sd_kl_f8' .* RGB images, and images of digits have 1 channel"),
    ],
)
def test_an_impossible_size_or_vae_gives_a_one_line_error(fields: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        data_facts(DataConfig.model_validate(fields))


def test_the_error_for_a_data_set_that_is_not_packed_names_the_missing_pack(tmp_path: Path) -> None:
    missing = (
        f"imagenet cannot be used: its packed folder {tmp_path}/imagenet-64-v2.2 is missing; `umd-bench data pack imagenet"
    )
    with pytest.raises(UserError, match=missing):
        open_data(DataConfig(name="imagenet", size=64), tmp_path)
    with pytest.raises(UserError, match=r"size = None is not accepted: images of food101 have no size of their own"):
        open_pack("food101", tmp_path)
    with pytest.raises(UserError, match="size = 9 is not accepted: images of digits have 8 pixels a side"):
        open_pack("digits", tmp_path, size=9)
    with pytest.raises(
        UserError, match=r"latents of imagenet \(sd_kl_f8\) cannot be used: .*imagenet-256-sd_kl_f8-v2\.2 is missing; `umd"
    ):
        open_data(DataConfig(name="imagenet", size=256, vae="sd_kl_f8"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_error_for_a_pack_of_an_earlier_version_says_what_it_lacks(tmp_path: Path) -> None:
    for name in ("imagenet-64-v1.2", "pets-8-v1.2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").touch()
    earlier = r"DIR \(.*imagenet-64-v1\.2 was packed by an earlier version, which made no validation split\)"
    with pytest.raises(UserError, match=earlier):
        open_pack("imagenet", tmp_path, size=64)
    message = (
        r"pets cannot be used: .*pets-8-v1\.2 was packed by an earlier version, which made no validation split; `umd-bench"
    )
    with pytest.raises(UserError, match=message):
        open_data(DataConfig(name="pets", size=8), tmp_path)


@pytest.mark.parametrize("name", slow_if_packed_long(name for name in READ if DATASETS[name].counts))
def test_the_counts_of_a_built_in_data_set_are_those_of_its_pack(name: str) -> None:
    skip_without_raw_files(name)
    assert open_pack(name, data_root()).manifest.counts == DATASETS[name].counts
