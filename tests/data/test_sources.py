"""Every source keeps the contract; each split is deterministic and parts what it promises to part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from umd_bench.config.errors import FieldError, UserError
from umd_bench.data import emoji64, fashion_mnist
from umd_bench.data.digits import read as read_digits
from umd_bench.data.pack import data_root, open_pack, verify
from umd_bench.data.sources import SOURCES, source

# A change here changes every result on that data set: bump the source's version with it.
DIGESTS = {
    "digits": "77c06ea8e73f0b72afd371c7246102aee6a22ce05a79683418e2f5f87f225838",
    "fashion_mnist": "2f8b9bc6fa96f3e7edf6bb0109aa759e9103ff59d8cf1f5168408f03523570fe",
}


def skip_without_raw_files(name: str) -> None:
    if name == "fashion_mnist" and not fashion_mnist.DEBIAN_FOLDER.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed: its 70,000 images are not packed here")
    if name == "emoji64":
        try:
            emoji64.locate(None)
        except UserError as missing:
            pytest.skip(f"nothing is rendered here: {missing}")


@pytest.mark.parametrize("name", SOURCES)
def test_a_source_keeps_what_its_facts_promise(name: str) -> None:
    skip_without_raw_files(name)
    facts = source(name)
    packed = open_pack(name, data_root())
    verify(packed)
    assert facts.name == name
    assert packed.manifest.class_names == facts.class_names
    for split_name in ("train", "test"):
        split = packed.split(split_name)
        assert split.images.shape == (len(split), facts.channels, facts.size, facts.size)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert set(np.unique(split.labels)) == set(range(len(facts.class_names)))


@pytest.mark.parametrize("name", ["digits", "emoji64"])
def test_no_image_is_in_both_splits(name: str) -> None:
    """Fashion-MNIST is left out: its splits are the publisher's."""
    skip_without_raw_files(name)
    packed = open_pack(name, data_root())
    train, test = ({image.tobytes() for image in packed.split(split).images} for split in ("train", "test"))
    assert not train & test


@pytest.mark.parametrize("name", DIGESTS)
def test_the_packed_content_is_the_same_everywhere(name: str) -> None:
    skip_without_raw_files(name)
    assert open_pack(name, data_root()).manifest.digest == DIGESTS[name]


def test_digits_have_fifty_test_images_of_each_class() -> None:
    splits = read_digits(None)
    assert len(splits["train"][1]) == 1297
    assert np.bincount(splits["test"][1]).tolist() == [50] * 10


def test_digits_keep_seventeen_grey_levels_over_the_full_range() -> None:
    levels = np.unique(read_digits(None)["train"][0])
    assert len(levels) == 17
    assert (levels[0], levels[-1]) == (0, 255)
    assert np.abs(levels - np.arange(17) * 255 / 16).max() <= 0.5


def test_digits_refuse_a_folder() -> None:
    with pytest.raises(UserError, match="inside scikit-learn"):
        read_digits(Path("/somewhere"))


def test_an_unknown_data_set_is_named_with_the_valid_ones() -> None:
    with pytest.raises(FieldError, match=r"data\.name = 'mnist'.*digits, emoji64, fashion_mnist"):
        source("mnist")


def test_importing_the_sources_imports_no_library_that_reads_them() -> None:
    code = "import sys, umd_bench.data.sources; sys.exit(bool({'sklearn', 'PIL', 'torchvision'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
