"""Every source keeps the contract; each split is deterministic and parts what it promises to part."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.data import OWN_SIZES, DataConfig
from umd_bench.data.builtin import emoji64, fashion_mnist
from umd_bench.data.builtin.digits import read as read_digits
from umd_bench.data.datasets import SOURCES, data_facts, source
from umd_bench.data.packs.pack import data_root, open_data, open_pack, pack, verify

# A change here changes every result on that data set: bump the source's version with it.
DIGESTS = {
    "digits": "74822436a821f1da96682a19da46004c3196eebbaf04b1030d4193f790230848",
    "fashion_mnist": "919d8050b3b4f45ed5377ca000427ee51c2a76abcc0330da6d08d69b55dcb472",
}


def skip_without_raw_files(name: str) -> None:
    if name == "fashion_mnist" and not fashion_mnist.DEBIAN_FOLDER.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed: its 70,000 images are not packed here")
    if name == "emoji64":
        try:
            emoji64.locate(None)
        except UserError as missing:
            pytest.skip(f"nothing is rendered here: {missing}")


READ = [name for name, facts in SOURCES.items() if facts.read is not None]


@pytest.mark.parametrize("name", READ)
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
    with pytest.raises(FieldError, match=r"data\.name = 'mnist'.*cifar100, digits, dtd, emoji64, fashion_mnist, .*imagenet, "):
        source("mnist")


def test_importing_the_sources_imports_no_library_that_reads_them() -> None:
    code = "import sys, umd_bench.data.datasets; sys.exit(bool({'sklearn', 'PIL', 'torchvision'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_facts_need_no_data_and_follow_the_size_and_the_vae() -> None:
    asked = [{"size": 64}, {"size": 256}, {"size": 256, "vae": "sd_kl_f8"}]
    found = [data_facts(DataConfig(name="imagenet", **fields)) for fields in asked]
    assert [(f.size, f.channels, f.classes) for f in found] == [(64, 3, 1000), (256, 3, 1000), (32, 4, 1000)]
    other = data_facts(DataConfig(name="imagenet", size=64, vae="any-f2c16"))
    assert (other.size, other.channels, other.vae) == (32, 16, "any-f2c16")
    digits = data_facts(DataConfig(name="digits"))
    assert (digits.size, digits.channels, digits.classes) == (8, 1, 10)


def test_own_sizes_are_those_of_the_sources() -> None:
    assert {name: facts.size for name, facts in SOURCES.items() if facts.size is not None} == OWN_SIZES


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "imagenet"}, r"data\.size = None is not accepted: images of imagenet have no size of their own"),
        (
            {"name": "imagenet", "size": 64, "vae": "vq"},
            r"data\.vae = 'vq' is not accepted: expected one of sd-vae-ft-ema, .*, or a name that ends in -f<factor>c",
        ),
        ({"name": "imagenet", "size": 100, "vae": "sd_kl_f8"}, r"data\.size = 100 .* multiple of 8"),
        ({"name": "digits", "vae": "sd_kl_f8"}, r"data\.vae = 'sd_kl_f8' .* RGB images, and those of digits have 1 channel"),
    ],
)
def test_a_size_or_vae_that_cannot_be_is_one_sentence(fields: dict[str, object], message: str) -> None:
    with pytest.raises(FieldError, match=message):
        data_facts(DataConfig.model_validate(fields))


def test_what_cannot_be_read_says_what_is_missing(tmp_path: Path) -> None:
    missing = (
        f"imagenet cannot be used: its packed folder {tmp_path}/imagenet-64-v1.2 is missing; `umd-bench data pack imagenet"
    )
    with pytest.raises(UserError, match=missing):
        open_data(DataConfig(name="imagenet", size=64), tmp_path)
    with pytest.raises(UserError, match=r"size = None is not accepted: images of food101 have no size of their own"):
        pack("food101", tmp_path)
    with pytest.raises(UserError, match="size = 9 is not accepted: images of digits have 8 pixels a side"):
        pack("digits", tmp_path, size=9)
    with pytest.raises(
        UserError, match=r"latents of imagenet \(sd_kl_f8\) cannot be used: .*imagenet-256-sd_kl_f8-v1\.2 is missing; `umd"
    ):
        open_data(DataConfig(name="imagenet", size=256, vae="sd_kl_f8"), tmp_path)
    assert list(tmp_path.iterdir()) == []
