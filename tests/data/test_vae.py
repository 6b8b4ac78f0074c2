"""A VAE is found offline, identified by its hash, and encodes as diffusers does; every mismatch gives a one-line error."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from data.small_vaes import CHANNELS, FACTOR, SCALE, SHIFT, SIZE, write_vae

from umd_bench.config.errors import FieldError, UserError
from umd_bench.data.batches.batches import to_unit
from umd_bench.data.vae import CONFIG_FILE, WEIGHTS_FILE, encode, find_vae, load_vae

CPU = torch.device("cpu")
IMAGES = torch.randint(0, 256, (5, 3, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vae(tmp_path_factory.mktemp("vaes") / "My VAE")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change(folder: Path, **fields: object) -> None:
    config = json.loads((folder / CONFIG_FILE).read_text())
    (folder / CONFIG_FILE).write_text(json.dumps(config | fields))


@pytest.mark.slow
def test_a_folder_has_a_geometry_and_a_name(folder: Path) -> None:
    files = find_vae(str(folder))
    assert (files.factor, files.channels) == (FACTOR, CHANNELS)
    assert files.latents_name(None) == "my-vae-f2c4"
    assert replace(files, label="stated-f2c4").latents_name(None) == "stated-f2c4"
    assert files.latents_name("other-f2c4") == "other-f2c4"


def test_the_hash_depends_on_configuration_and_weights_and_not_on_the_folder(folder: Path, copy: Path, tmp_path: Path) -> None:
    here = find_vae(str(folder)).hash
    change(copy, _name_or_path="somewhere", _diffusers_version="0.1")
    assert find_vae(str(copy)).hash == here
    change(copy, scaling_factor=0.5)
    assert find_vae(str(copy)).hash != here
    assert find_vae(str(write_vae(tmp_path / "other", seed=1))).hash != here


def test_encode_gives_diffusers_posteriors_of_the_image_and_of_its_mirror_image(folder: Path) -> None:
    from diffusers import AutoencoderKL

    moments = encode(load_vae(find_vae(str(folder)), CPU), IMAGES)
    assert moments.shape == (5, 2, 2, CHANNELS, SIZE // FACTOR, SIZE // FACTOR)
    theirs = AutoencoderKL.from_pretrained(str(folder), low_cpu_mem_usage=False).eval()
    for view, images in enumerate((IMAGES, IMAGES.flip(-1))):
        with torch.no_grad():
            posterior = theirs.encode(to_unit(images)).latent_dist
        assert torch.allclose(moments[:, view, 0], posterior.mean, atol=1e-5)
        assert torch.allclose(moments[:, view, 1], posterior.std, atol=1e-5)
    # Both posteriors are stored because the network does not commute with mirroring.
    assert not torch.allclose(moments[:, 1, 0], moments[:, 0, 0].flip(-1), atol=1e-2)


def test_the_number_encoded_at_once_changes_no_image(folder: Path) -> None:
    vae = load_vae(find_vae(str(folder)), CPU)
    many = IMAGES.repeat(8, 1, 1, 1)
    assert torch.allclose(encode(vae, many)[35:], encode(vae, IMAGES), atol=1e-5)


def test_bf16_is_close_to_fp32_and_not_equal(folder: Path) -> None:
    files = find_vae(str(folder))
    fp32, bf16 = (encode(load_vae(files, CPU, precision), IMAGES) for precision in ("fp32", "bf16"))
    assert 0 < (fp32 - bf16).abs().max() < 0.2


def test_a_name_is_looked_up_in_the_cache_and_never_on_the_network(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    cached = {("someone/sd-vae", name): str(folder / name) for name in (CONFIG_FILE, WEIGHTS_FILE)}
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name: cached.get((repo, name)))
    monkeypatch.chdir(tmp_path)
    files = find_vae("someone/sd-vae")
    assert (files.folder, files.latents_name(None)) == (folder, "sd-vae-f2c4")
    with pytest.raises(UserError, match=r"'someone/else' .*there is no such folder.*downloads nothing"):
        find_vae("someone/else")


@pytest.mark.parametrize("name", ["a b c/d", "../nowhere", "/no/such/folder", ""])
def test_an_unknown_folder_or_name_gives_a_one_line_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"--vae = .*is not accepted|has no config\.json"):
        find_vae(name)


@pytest.mark.parametrize("file", [CONFIG_FILE, WEIGHTS_FILE])
def test_a_folder_without_one_of_the_files_is_refused(file: str, copy: Path) -> None:
    (copy / file).unlink()
    (copy / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(UserError, match=f"is not the folder of a VAE: it has no {file}"):
        find_vae(str(copy))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"_class_name": "AutoencoderDC"}, "configures AutoencoderDC: expected diffusers' AutoencoderKL"),
        ({"in_channels": 1}, "has in_channels = 1: expected 3"),
        ({"out_channels": 4}, "has out_channels = 4: expected 3"),
        ({"latent_channels": None}, "lacks block_out_channels or latent_channels"),
        ({"latents_std": [1, 1, 1, 1]}, "normalises each channel"),
    ],
)
def test_a_configuration_of_another_model_is_refused(fields: dict[str, object], message: str, copy: Path) -> None:
    change(copy, **fields)
    with pytest.raises(UserError, match=message):
        find_vae(str(copy))


def test_a_configuration_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / CONFIG_FILE).write_text("{")
    with pytest.raises(UserError, match="cannot be read as JSON"):
        find_vae(str(copy))


@pytest.mark.parametrize("fields", [{"latent_channels": 3}, {"block_out_channels": [4, 8, 8]}, {"act_fn": "nothing"}])
def test_weights_that_do_not_match_the_configuration_are_refused(fields: dict[str, object], copy: Path) -> None:
    change(copy, **fields)
    with pytest.raises(UserError, match=r"cannot be loaded|do not match its configuration"):
        load_vae(find_vae(str(copy)), CPU)


def test_weights_that_are_no_safetensors_are_refused(copy: Path) -> None:
    (copy / WEIGHTS_FILE).write_bytes(b"pickle, say")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_vae(find_vae(str(copy)), CPU)


def test_a_name_that_states_another_geometry_is_refused(folder: Path) -> None:
    files = find_vae(str(folder))
    for name in ("sd-vae-ft-ema", "mine-f8c4"):
        with pytest.raises(FieldError, match=r"states 4 channels and sides divided by 8; the VAE .* divides by 2"):
            files.latents_name(name)
    with pytest.raises(FieldError, match="--vae-name = 'mine'"):
        files.latents_name("mine")


def test_the_error_without_diffusers_names_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(UserError, match=r"pip install 'umd-bench\[latents\]'"):
        find_vae(str(folder))


def test_the_scale_and_the_shift_are_the_configurations(folder: Path) -> None:
    config = load_vae(find_vae(str(folder)), CPU).config
    assert (config.scaling_factor, config.shift_factor) == (SCALE, SHIFT)
