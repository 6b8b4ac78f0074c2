"""Packs of latents: what is stored, what a batch is sampled from, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from data.small_vaes import CHANNELS, FACTOR, N_TRAIN, SCALE, SHIFT, SIZE, TINIES, pack_small, read_tinies, write_vae

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.data import DataConfig
from umd_bench.config.trial.train_stage import AugmentConfig
from umd_bench.data.batches.augment import draw_crops, draw_flips
from umd_bench.data.batches.batches import Batches, to_uint8, unaugmented
from umd_bench.data.datasets import SOURCES
from umd_bench.data.packing import latents
from umd_bench.data.packs.pack import Pack, images_of, open_data, verify
from umd_bench.data.packs.writer import Progress
from umd_bench.data.vae import WEIGHTS_FILE, decoder_of, encode, find_vae, load_vae

CPU = torch.device("cpu")
h = SIZE // FACTOR
DATA = DataConfig(name="tinies", size=SIZE, vae="vae-f2c4")


@pytest.fixture(scope="module")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vae(tmp_path_factory.mktemp("vaes") / "vae")


@pytest.fixture(autouse=True)
def _tinies() -> Iterator[None]:
    SOURCES["tinies"] = TINIES
    yield
    del SOURCES["tinies"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory, vae: Path) -> Path:
    SOURCES["tinies"] = TINIES
    root = tmp_path_factory.mktemp("root")
    pack_small(root, vae)
    return root


@pytest.fixture
def packed(root: Path) -> Pack:
    return open_data(DATA, root)


def batches(pack: Pack, *, batch: int = 8, seed: int = 0, purpose: str = "pretrain", flip: bool = True) -> Batches:
    augment = AugmentConfig(flip=flip)
    return Batches(pack.split("train"), batch=batch, seed=seed, purpose=purpose, augment=augment, device=CPU)


def test_a_row_is_the_posterior_of_the_image_and_of_its_mirror_image_in_half_precision(packed: Pack, vae: Path) -> None:
    split = packed.split("train")
    images, labels = read_tinies(None)["train"]
    assert (split.images.shape, split.images.dtype) == ((N_TRAIN, 2, 2, CHANNELS, h, h), np.float16)
    exact = encode(load_vae(find_vae(str(vae)), CPU), torch.from_numpy(images))
    assert np.allclose(split.images[:], exact.numpy(), rtol=1e-3, atol=1e-4)
    assert np.array_equal(split.labels, labels)


def test_the_manifest_says_what_the_model_sees_and_what_it_was_made_with(packed: Pack, vae: Path) -> None:
    facts = packed.manifest
    assert (facts.size, facts.channels, facts.counts, facts.class_names) == (
        h, CHANNELS, {"train": 24, "test": 10}, ("red", "blue"),
    )  # fmt: skip
    assert facts.vae is not None
    assert (facts.vae.name, facts.vae.hash, facts.vae.precision) == ("vae-f2c4", find_vae(str(vae)).hash, "fp32")
    assert (facts.vae.scale, facts.vae.shift, facts.vae.factor) == (SCALE, SHIFT, FACTOR)
    assert packed.path.name == "tinies-16-vae-f2c4-v1.2"
    assert images_of(packed).manifest.digest == facts.vae.pixels
    verify(packed)


def test_a_batch_is_a_sample_of_the_posteriors_of_the_views_that_the_flips_choose(packed: Pack) -> None:
    x_0, labels = batches(packed).at(8)
    order = np.random.default_rng(derive_seed(0, "pretrain/order", 0)).permutation(N_TRAIN)[8:16]
    rng = np.random.default_rng(derive_seed(0, "pretrain/augment", 8))
    draw_crops(rng, 8, SIZE, 0.8)  # drawn first for images, so that the flips are those that images get
    flips = draw_flips(rng, 8)
    split = packed.split("train")
    moments = split.images[order].astype(np.float32)[np.arange(8), flips.astype(int)]
    eps = torch.randn(8, CHANNELS, h, h, generator=torch.Generator().manual_seed(derive_seed(0, "pretrain/posterior", 8)))
    expected = (moments[:, 0] + moments[:, 1] * eps.numpy() - SHIFT) * SCALE
    assert 0 < flips.sum() < 8
    assert np.allclose(x_0.numpy(), expected, atol=1e-6)
    assert np.array_equal(labels.numpy(), split.labels[order])


def test_a_batch_depends_on_seed_purpose_and_nimg_alone(packed: Pack) -> None:
    walked = batches(packed)
    for nimg in (0, 8, 16, 24):
        assert torch.equal(walked.at(nimg)[0], batches(packed).at(nimg)[0])
    assert torch.equal(walked.at(8)[0], batches(packed).at(8)[0])
    for other in (batches(packed, seed=1), batches(packed, purpose="finetune")):
        assert not torch.equal(other.at(0)[0], walked.at(0)[0])


def test_each_visit_is_a_fresh_sample_with_the_posteriors_moments(packed: Pack) -> None:
    split = packed.split("train")
    loaded = batches(packed, batch=N_TRAIN, flip=False)
    seen = torch.stack([epoch_in_order(loaded, epoch) for epoch in range(400)])
    mean, std = (torch.from_numpy(split.images[:][:, 0, moment].astype(np.float32)) for moment in (0, 1))
    error = (seen.mean(0) - (mean - SHIFT) * SCALE).abs() / (std * SCALE / 20)
    assert error.max() < 6  # standard errors of 400 samples, over 24 * 256 numbers
    assert ((seen.std(0) / (std * SCALE)) - 1).abs().max() < 0.2


def epoch_in_order(loaded: Batches, epoch: int) -> torch.Tensor:
    """A batch of a whole epoch, in the order of the split."""
    order = np.random.default_rng(derive_seed(0, "pretrain/order", epoch)).permutation(N_TRAIN)
    return loaded.at(epoch * N_TRAIN)[0][torch.from_numpy(np.argsort(order))]


def test_an_evaluation_sees_the_scaled_mean_of_the_image_itself(packed: Pack) -> None:
    split = packed.split("test")
    index = np.array([3, 0])
    expected = (split.images[index][:, 0, 0].astype(np.float32) - SHIFT) * SCALE
    assert np.allclose(unaugmented(split, index).numpy(), expected, atol=1e-6)


def test_crops_of_latents_are_refused(packed: Pack) -> None:
    augment = AugmentConfig(crop_area_min=0.8)
    with pytest.raises(FieldError, match=r"augment\.crop_area_min = 0\.8 is not accepted: expected 1 on latents"):
        Batches(packed.split("train"), batch=8, seed=0, purpose="pretrain", augment=augment, device=CPU)


def test_decoding_needs_nothing_but_the_pack_and_undoes_the_scale(packed: Pack, vae: Path) -> None:
    x_0 = unaugmented(packed.split("test"), np.arange(4))
    network = load_vae(find_vae(str(vae)), CPU)
    with torch.no_grad():
        expected = to_uint8(network.decode(x_0 / SCALE + SHIFT).sample)
    hidden = vae.rename(vae.with_name("away"))
    try:
        images = decoder_of(packed, CPU)(x_0)
    finally:
        hidden.rename(vae)
    assert (images.shape, images.dtype) == ((4, 3, SIZE, SIZE), torch.uint8)
    assert (images.int() - expected.int()).abs().max() <= 1


def test_the_decoder_of_images_only_rounds(packed: Pack) -> None:
    images = torch.from_numpy(images_of(packed).split("test").images[:4])
    x_0 = unaugmented(images_of(packed).split("test"), np.arange(4))
    assert torch.equal(decoder_of(images_of(packed), CPU)(x_0), images)


def test_a_vae_that_was_exchanged_in_the_pack_is_found_out(packed: Pack, tmp_path: Path) -> None:
    weights = packed.path / WEIGHTS_FILE
    kept = weights.read_bytes()
    weights.write_bytes((write_vae(tmp_path / "other", seed=1) / WEIGHTS_FILE).read_bytes())
    try:
        with pytest.raises(UserError, match="is not the one that its latents were made with"):
            decoder_of(packed, CPU)
        with pytest.raises(UserError, match=f"{WEIGHTS_FILE} is not what was packed"):
            verify(packed)
    finally:
        weights.write_bytes(kept)


def test_latents_are_packed_once_and_another_vae_needs_a_name_of_its_own(
    root: Path, packed: Pack, vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "load_vae", lambda *_: pytest.fail("encoded twice"))
    assert pack_small(root, vae) == packed
    other = write_vae(tmp_path / "vae", seed=1)
    with pytest.raises(UserError, match=r"holds latents of another VAE .*--vae-name, or remove the folder"):
        pack_small(root, other)


def test_progress_counts_every_image(vae: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    pack_small(tmp_path, vae, progress=seen.append)
    assert (seen[-1].done, seen[-1].total) == (34, 34)


def refused(root: Path, vae: Path | str, **fields: object) -> str:
    before = sorted(root.iterdir())
    with pytest.raises(UserError) as caught:
        pack_small(root, vae, **fields)  # type: ignore[arg-type]
    assert sorted(root.iterdir()) == before
    return str(caught.value)


def test_what_cannot_be_packed_is_one_sentence_and_leaves_nothing(vae: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    assert "no folder here" in refused(root, tmp_path / "nowhere")
    assert "expected a multiple of 2" in refused(root, vae, size=15)
    assert "takes RGB images" in refused(root, vae, name="digits", size=None)
    assert "expected one of bf16, fp32" in refused(root, vae, precision="fp8")
    assert "expected one of auto, cpu, cuda" in refused(root, vae, device="tpu")
    assert "have no size of their own" in refused(root, vae, size=None)
    assert "has in_channels = 1" in refused(root, write_vae(tmp_path / "grey", in_channels=1, out_channels=1))


def test_latents_that_half_precision_does_not_hold_are_refused(
    vae: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latents, "encode", lambda vae, images: encode(vae, images) * 1e6)
    with pytest.raises(UserError, match="gives image 0 of the train split a posterior that float16 does not hold"):
        pack_small(tmp_path, vae)
    assert [path.name for path in tmp_path.iterdir()] == ["tinies-16-v1.2"]


def test_latents_of_images_that_are_others_now_are_found_out(packed: Pack, root: Path) -> None:
    path = packed.path / "manifest.json"
    kept = path.read_text()
    manifest = packed.manifest
    assert manifest.vae is not None
    other = manifest.model_copy(update={"vae": manifest.vae.model_copy(update={"pixels": "0" * 64})}).sealed()
    path.write_text(other.model_dump_json(exclude_none=True))
    try:
        with pytest.raises(UserError, match="holds latents of other images than"):
            images_of(open_data(DATA, root))
    finally:
        path.write_text(kept)


def test_latents_that_are_not_packed_are_named_with_the_command(tmp_path: Path) -> None:
    command = "data pack tinies --size 16 --vae NAME_OR_PATH --vae-name vae-f2c4"
    with pytest.raises(UserError, match=f"{command}` makes it of the packed images"):
        open_data(DATA, tmp_path)


def test_a_folder_renamed_to_another_vae_is_found_out(packed: Pack, root: Path) -> None:
    moved = packed.path.rename(packed.path.with_name("tinies-16-other-f2c4-v1.2"))
    try:
        with pytest.raises(UserError, match="is not of latents of other-f2c4"):
            open_data(DATA.model_copy(update={"vae": "other-f2c4"}), root)
    finally:
        moved.rename(packed.path)


def test_a_pack_of_images_has_the_digest_it_had_before_there_were_latents(packed: Pack) -> None:
    manifest = json.loads((images_of(packed).path / "manifest.json").read_text())
    assert "vae" not in manifest
