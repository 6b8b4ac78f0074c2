"""Packs of latents: their contents, their decoding, and the requests that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from data.small_vaes import (
    CHANNELS,
    FACTOR,
    N_TEST,
    N_TRAIN,
    N_VALIDATION,
    SCALE,
    SHIFT,
    SIZE,
    pack_small,
    read_tinies,
    write_vae,
)

from umd_bench.config.errors import UserError
from umd_bench.config.trial.data import DataConfig
from umd_bench.data.batches.batches import to_uint8, unaugmented
from umd_bench.data.open_data import open_data, source_images
from umd_bench.data.packing import latents
from umd_bench.data.packs.pack import Pack, verify
from umd_bench.data.packs.writer import PackProgress
from umd_bench.data.vae import WEIGHTS_FILE, decoder_for, encode, find_vae, load_vae

CPU = torch.device("cpu")
h = SIZE // FACTOR
DATA = DataConfig(name="tinies", size=SIZE, vae="vae-f2c4")


pytestmark = pytest.mark.usefixtures("tinies")


@pytest.mark.parametrize(("name", "n"), [("train", N_TRAIN), ("validation", N_VALIDATION), ("test", N_TEST)])
def test_a_row_is_the_posterior_of_the_image_and_of_its_mirror_image_in_half_precision(
    packed: Pack, vae: Path, name: str, n: int
) -> None:
    split = packed.split(name)
    images, labels = read_tinies(None)[name]
    assert (split.images.shape, split.images.dtype) == ((n, 2, 2, CHANNELS, h, h), np.float16)
    exact = encode(load_vae(find_vae(str(vae)), CPU), torch.from_numpy(images))
    assert np.allclose(split.images[:], exact.numpy(), rtol=1e-3, atol=1e-4)
    assert np.array_equal(split.labels, labels)


def test_the_manifest_has_the_facts_of_the_latents_and_of_the_vae(packed: Pack, vae: Path) -> None:
    facts = packed.manifest
    assert (facts.size, facts.channels, facts.counts, facts.class_names) == (
        h, CHANNELS, {"train": 24, "test": 10, "validation": 6}, ("red", "blue"),
    )  # fmt: skip
    assert facts.vae is not None
    assert (facts.vae.name, facts.vae.hash, facts.vae.precision) == ("vae-f2c4", find_vae(str(vae)).hash, "fp32")
    assert (facts.vae.scale, facts.vae.shift, facts.vae.factor) == (SCALE, SHIFT, FACTOR)
    assert packed.path.name == "tinies-16-vae-f2c4-v1.2"
    assert source_images(packed).manifest.digest == facts.vae.pixels
    verify(packed)


def test_decoding_needs_only_the_pack_and_inverts_the_scale(packed: Pack, vae: Path) -> None:
    x_0 = unaugmented(packed.split("test"), np.arange(4))
    network = load_vae(find_vae(str(vae)), CPU)
    with torch.no_grad():
        expected = to_uint8(network.decode(x_0 / SCALE + SHIFT).sample)
    hidden = vae.rename(vae.with_name("away"))
    try:
        images = decoder_for(packed, CPU)(x_0)
    finally:
        hidden.rename(vae)
    assert (images.shape, images.dtype) == ((4, 3, SIZE, SIZE), torch.uint8)
    assert (images.int() - expected.int()).abs().max() <= 1


def test_the_decoder_for_a_pack_of_images_only_rounds(packed: Pack) -> None:
    images = torch.from_numpy(source_images(packed).split("test").images[:4])
    x_0 = unaugmented(source_images(packed).split("test"), np.arange(4))
    assert torch.equal(decoder_for(source_images(packed), CPU)(x_0), images)


def test_another_vae_in_the_pack_is_an_error(packed: Pack, tmp_path: Path) -> None:
    weights = packed.path / WEIGHTS_FILE
    original = weights.read_bytes()
    weights.write_bytes((write_vae(tmp_path / "other", seed=1) / WEIGHTS_FILE).read_bytes())
    try:
        with pytest.raises(UserError, match="is not the one that its latents were made with"):
            decoder_for(packed, CPU)
        with pytest.raises(UserError, match=f"{WEIGHTS_FILE} has changed since it was packed"):
            verify(packed)
    finally:
        weights.write_bytes(original)


def test_latents_are_packed_once_and_another_vae_needs_another_name(
    root: Path, packed: Pack, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "load_vae", lambda *_: pytest.fail("encoded twice"))
    assert pack_small(root, vae) == packed
    other = write_vae(tmp_path / "vae", seed=1)
    with pytest.raises(UserError, match=r"holds latents of another VAE .*--vae-name, or remove the folder"):
        pack_small(root, other)


def test_progress_counts_every_image(vae: Path, tmp_path: Path) -> None:
    seen: list[PackProgress] = []
    pack_small(tmp_path, vae, progress=seen.append)
    assert (seen[-1].done, seen[-1].total) == (40, 40)


def refused(root: Path, vae: Path | str, **fields: object) -> str:
    before = sorted(root.iterdir())
    with pytest.raises(UserError) as caught:
        pack_small(root, vae, **fields)  # type: ignore[arg-type]
    assert sorted(root.iterdir()) == before
    return str(caught.value)


def test_an_invalid_request_gives_a_one_line_error_and_leaves_no_files(vae: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    assert "there is no such folder" in refused(root, tmp_path / "nowhere")
    assert "expected a multiple of 2" in refused(root, vae, size=15)
    assert "takes RGB images" in refused(root, vae, name="digits", size=None)
    assert "expected one of bf16, fp32" in refused(root, vae, precision="fp8")
    assert "expected one of auto, cpu, cuda" in refused(root, vae, device="tpu")
    assert "have no size of their own" in refused(root, vae, size=None)
    assert "has in_channels = 1" in refused(root, write_vae(tmp_path / "grey", in_channels=1, out_channels=1))


def test_latents_that_float16_cannot_represent_are_refused(vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latents, "encode", lambda vae, images: encode(vae, images) * 1e6)
    with pytest.raises(UserError, match="gives image 0 of the train split a posterior that float16 cannot represent"):
        pack_small(tmp_path, vae)
    assert [path.name for path in tmp_path.iterdir()] == ["tinies-16-v1.2"]


def test_latents_of_images_that_have_changed_are_an_error(packed: Pack, root: Path) -> None:
    path = packed.path / "manifest.json"
    original = path.read_text()
    manifest = packed.manifest
    assert manifest.vae is not None
    other = manifest.model_copy(update={"vae": manifest.vae.model_copy(update={"pixels": "0" * 64})}).sealed()
    path.write_text(other.model_dump_json(exclude_none=True))
    try:
        with pytest.raises(UserError, match="holds latents of other images than"):
            source_images(open_data(DATA, root))
    finally:
        path.write_text(original)


def test_the_error_for_latents_that_are_not_packed_gives_the_command(tmp_path: Path) -> None:
    command = "data pack tinies --size 16 --vae NAME_OR_PATH --vae-name vae-f2c4"
    with pytest.raises(UserError, match=f"{command}` makes it from the packed images"):
        open_data(DATA, tmp_path)


def test_a_folder_renamed_to_another_vae_is_an_error(packed: Pack, root: Path) -> None:
    moved = packed.path.rename(packed.path.with_name("tinies-16-other-f2c4-v1.2"))
    try:
        with pytest.raises(UserError, match="does not describe latents of other-f2c4"):
            open_data(DATA.model_copy(update={"vae": "other-f2c4"}), root)
    finally:
        moved.rename(packed.path)


def test_the_manifest_of_a_pack_of_images_has_no_field_for_a_vae(packed: Pack) -> None:
    manifest = json.loads((source_images(packed).path / "manifest.json").read_text())
    assert "vae" not in manifest
