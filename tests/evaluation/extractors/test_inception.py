"""FID's features need the published weights, which loading never downloads; no score of other features is called ``fid``."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import pickle
from pathlib import Path

import pytest
import torch
from evaluation.agreement_extractors import random_inception_weights

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors import inception
from umd_bench.evaluation.extractors.contract import Extractor, Features
from umd_bench.evaluation.extractors.registry import load_extractor

NAME = "inception-v3-compat"


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.fixture(scope="module")
def random_weights() -> bytes:
    return random_inception_weights()


@pytest.fixture(autouse=True)
def _no_weights_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide this machine's own weights."""
    monkeypatch.delenv("UMD_BENCH_INCEPTION", raising=False)
    monkeypatch.setenv("UMD_BENCH_WEIGHTS", str(tmp_path / "fetched"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


def test_the_error_for_missing_weights_names_three_ways_and_downloads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    how_to_get = (
        r"name the file in \$UMD_BENCH_INCEPTION, or run `umd-bench extractor fetch inception-v3-compat`, which downloads "
        rf"https://\S+ to {tmp_path}/fetched/pt_inception-2015-12-05-6726825d\.pth, or put torch-fidelity's "
        r"weights-inception-2015-12-05-6726825d\.pth into \$TORCH_HOME/hub/checkpoints"
    )
    with pytest.raises(UserError, match=rf"has no weights in {tmp_path}/fetched/\S+ or {tmp_path}/torch/hub/\S+: {how_to_get}"):
        load_extractor(NAME)
    monkeypatch.setenv("UMD_BENCH_INCEPTION", str(tmp_path / "nowhere.pth"))
    with pytest.raises(UserError, match=rf"has no weights in {tmp_path}/nowhere\.pth: {how_to_get}"):
        load_extractor(NAME)
    monkeypatch.setenv("UMD_BENCH_INCEPTION", str(tmp_path))
    with pytest.raises(UserError, match=rf"cannot be read from {tmp_path} \(Is a directory\): {how_to_get}"):
        load_extractor(NAME)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_weights_are_found_at_each_of_three_paths_and_the_path_in_the_variable_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_weights: bytes
) -> None:
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(random_weights).hexdigest())
    paths = [tmp_path / "mine.pth", tmp_path / "fetched" / inception.FILE]
    paths.append(tmp_path / "torch" / "hub" / "checkpoints" / inception.FIDELITY_FILE)
    for path in reversed(paths):
        if path == paths[0]:
            monkeypatch.setenv("UMD_BENCH_INCEPTION", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(random_weights)
        assert inception.find_weights() == random_weights
        path.write_bytes(b"others")
        with pytest.raises(UserError, match=f"{path} is not the Inception-v3 that FID is defined by"):
            inception.find_weights()  # the error names this path, so no later path is tried
    assert load_extractor_of(random_weights, paths[0]).hash == inception.SHA256


def load_extractor_of(weights: bytes, path: Path) -> Extractor:
    path.write_bytes(weights)
    return load_extractor(NAME)


@pytest.mark.slow
def test_weights_of_another_hash_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, random_weights: bytes) -> None:
    path = tmp_path / inception.FILE
    path.write_bytes(random_weights)
    monkeypatch.setenv("UMD_BENCH_INCEPTION", str(path))
    with pytest.raises(UserError, match=r"is not the Inception-v3 that FID is defined by \(SHA-256 \w{8}, expected 6726825d\)"):
        load_extractor(NAME)


def extractor_of(network: inception.Inception) -> Extractor:
    return Extractor(
        **dataclasses.asdict(inception.FACTS),
        hash=inception.SHA256,
        device=torch.device("cpu"),
        network=lambda images, spatial: Features(*network(images, spatial=spatial)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("side", [8, 64])
def test_rgb_images_of_any_side_give_2048_features_1008_logits_and_2023_spatial_features(
    random_weights: bytes, side: int
) -> None:
    extractor = extractor_of(inception.Inception(inception.build_network(random_weights)))
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    out, plain = extractor.features(images, spatial=True), extractor.features(images)
    assert out.logits is not None
    assert out.spatial is not None
    assert (out.pooled.shape, out.logits.shape) == ((2, inception.FACTS.dim), (2, 1008))
    assert (out.spatial.shape, out.spatial.dtype) == ((2, 2023), torch.float32)
    assert out.pooled.isfinite().all()
    assert plain.spatial is None
    assert torch.equal(plain.pooled, out.pooled)
    with pytest.raises(UserError, match=r"expected uint8 of shape \[B, 3, H, W\]"):
        extractor.features(images[:, :2])


@pytest.mark.slow
def test_spatial_features_are_seven_channels_of_the_seventh_block_channel_last(random_weights: bytes) -> None:
    network = inception.build_network(random_weights)
    blocks: list[torch.Tensor] = []
    network.Mixed_6d.register_forward_hook(lambda module, given, output: blocks.append(output))
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    out = extractor_of(inception.Inception(network)).features(images, spatial=True).spatial
    assert out is not None
    assert (out >= 0).all()  # after the ReLU
    for place, channel in ((0, 0), (5, 6), (17 * 17 - 1, 3)):
        assert torch.equal(out[:, 7 * place + channel], blocks[0][:, channel, place // 17, place % 17])


def test_pickled_code_is_refused_and_never_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[object, ...]]:
            return (Path.touch, (tmp_path / "ran",))

    with pytest.raises(UserError, match="are not tensors that torch saved"):
        inception.build_network(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="are not tensors that torch saved"):
        inception.build_network(saved(Evil()))
    assert not (tmp_path / "ran").exists()


def test_a_frechet_distance_is_called_fid_only_with_these_features() -> None:
    digits_cnn = load_extractor("digits_cnn")
    named = {name: [dataclasses.replace(digits_cnn, name=name).metric_name(score) for score in SCORES] for name in NAMES}
    assert named == {
        NAME: ["fid", "is"],
        "digits_cnn": ["fd_digits_cnn", "is_digits_cnn"],
        "timm:vit_small_patch14_dinov2.lvd142m": [
            "fd_timm_vit_small_patch14_dinov2_lvd142m",
            "is_timm_vit_small_patch14_dinov2_lvd142m",
        ],
    }


SCORES = ("fd", "is")
NAMES = (NAME, "digits_cnn", "timm:vit_small_patch14_dinov2.lvd142m")


@pytest.mark.parametrize("variables", [{}, {"XDG_CACHE_HOME": "/c"}, {"TORCH_HOME": "~/torch", "XDG_CACHE_HOME": "/c"}])
def test_torch_fidelitys_file_is_searched_in_torchs_hub_folder(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TORCH_HOME", "XDG_CACHE_HOME", inception.VARIABLE):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    assert inception.weight_paths()[1].parent.parent == Path(torch.hub.get_dir())
