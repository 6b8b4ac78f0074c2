"""The shapes in an official checkpoint determine the whole model, and an error names a wrong parameter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from engine.golden_files import HEADS, TAGS, arrays
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.trial.model import ModelConfig
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.published.small_vision import official_shapes, read_small_vision
from umd_bench.engine.published.small_vision_conversion import to_official

ENCODER = "Encoder/ScanCheckpointEncoder1DBlock_0/"


def tensors(tag: str = "adaln1_nc10", prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: torch.from_numpy(value) for name, value in arrays(f"params_{tag}").items()}


@pytest.mark.parametrize("tag", TAGS)
def test_the_shapes_determine_the_model(tag: str) -> None:
    weights = read_small_vision(tensors(tag))
    assert weights.model == ModelConfig(
        patch=4, width=48, depth=2, decoder_depth=1, heads=HEADS, class_tokens=4, adaln=tag.startswith("adaln1")
    )
    assert (weights.size, weights.channels, weights.classes) == (16, 3, int(tag.split("nc")[1]))
    AutoEncoder(weights.model, size=16, channels=3, classes=weights.classes).load_state_dict(weights.state)


@pytest.mark.parametrize("tag", TAGS)
def test_reading_and_converting_back_is_exact_to_the_bit(tag: str) -> None:
    params = arrays(f"params_{tag}")
    back = to_official(read_small_vision(tensors(tag)).state, HEADS)
    assert back.keys() == params.keys()
    assert all(back[name].tobytes() == np.ascontiguousarray(value).tobytes() for name, value in params.items())


def test_a_common_prefix_is_removed_with_a_note() -> None:
    weights = read_small_vision(tensors(prefix="opt/target/params/"))
    plain = read_small_vision(tensors())
    assert weights.notes == ("names stand below 'opt/target/params/' in the file",)
    assert plain.notes == ()
    assert all(torch.equal(weights.state[name], value) for name, value in plain.state.items())


@pytest.mark.parametrize(
    ("name", "width", "depth", "decoder_depth", "heads"),
    [("S", 384, 12, 4, 6), ("B", 768, 12, 4, 12), ("L", 1024, 24, 8, 16)],
)
@pytest.mark.parametrize(("adaln", "classes"), [(True, 1000), (True, 0), (False, 0)])
def test_real_sizes_have_the_official_names_and_parameter_counts(
    name: str, width: int, depth: int, decoder_depth: int, heads: int, adaln: bool, classes: int
) -> None:
    # L is the latent model: 32 x 32 x 4, patch 2. The counts come from the official implementation.
    size, channels, patch = (32, 4, 2) if name == "L" else (64, 3, 4)
    config = ModelConfig(patch=patch, width=width, depth=depth, decoder_depth=decoder_depth, heads=heads, adaln=adaln)
    shapes = official_shapes(config, size=size, channels=channels, classes=classes)
    counts = {
        ("S", True, 1000): 44_701_830, ("B", True, 1000): 177_287_430, ("L", True, 1000): 616_705_032,
        ("S", True, 0): 43_726_470, ("B", True, 0): 174_157_062, ("L", True, 0): 611_482_632,
        ("S", False, 0): 29_238_150, ("B", False, 0): 116_279_046, ("L", False, 0): 407_860_232,
    }  # fmt: skip
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == counts[name, adaln, classes]
    tag = f"adaln{int(adaln)}_nc{10 if classes else 0}"
    assert shapes.keys() == arrays(f"params_{tag}").keys()


@pytest.mark.slow
def test_a_model_of_size_s_is_converted_with_its_names_and_shapes() -> None:
    config = ModelConfig(patch=4, width=384, depth=12, decoder_depth=4, heads=6)
    shapes = official_shapes(config, size=64, channels=3, classes=10)
    generator = torch.Generator().manual_seed(0)
    weights = read_small_vision({name: torch.randn(shape, generator=generator) for name, shape in shapes.items()})
    assert weights.model == config
    back = to_official(weights.state, heads=6)
    assert {name: value.shape for name, value in back.items()} == shapes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_embedding": None}, "'pos_embedding' is missing"),
        ({"image_mask_embedding": None}, "'image_mask_embedding' is missing"),
        ({ENCODER + "LayerNorm_1/bias": None}, "LayerNorm_1/bias' is missing"),
        ({ENCODER + "Dense_9/kernel": torch.zeros(2, 3)}, "Dense_9/kernel' is unknown to the layout small-vision"),
        ({"time_trunk/Dense_0/kernel": torch.zeros(96, 48)}, r"has the shape \[96, 48\]: expected \[48, 96\]"),
        (
            {ENCODER + "LayerNorm_0/scale": torch.zeros(3, 48)},
            r"LayerNorm_0/scale' has the shape \[3, 48\]: expected \[2, 48\]",
        ),
        ({"embedding/kernel": torch.zeros(48, 48)}, r"'embedding/kernel' has the shape \[48, 48\]: expected \[patch"),
        ({"label_trunk/Dense_0/bias": None}, "'label_trunk/Dense_0/bias' is missing"),
    ],
)
def test_the_error_names_the_wrong_parameter(change: dict[str, Tensor | None], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_small_vision({name: value for name, value in (tensors() | change).items() if value is not None})


def test_two_sets_of_weights_in_one_file_are_refused() -> None:
    with pytest.raises(UserError, match="expected one set of weights"):
        read_small_vision(tensors(prefix="params/") | tensors(prefix="ema/"))


def test_stated_heads_must_agree_with_the_file() -> None:
    with pytest.raises(UserError, match="heads = 4 is not accepted: the file's attention kernels have 3"):
        read_small_vision(tensors(), heads=4)
