"""The model has the official outputs, parameter counts and initial scales, and its documented properties."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from engine.golden_files import TAGS, arrays, images, tiny_model, worst, worst_by_row
from torch import Tensor

from umd_bench.config.errors import FieldError
from umd_bench.config.trial.model import ModelConfig
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.networks.blocks import Block, attend, modulate
from umd_bench.engine.networks.conditioning import timestep_embedding
from umd_bench.engine.networks.initialise import build_model

INPUT = arrays("model_inputs")
IMAGE, T = images(INPUT["image"]), torch.from_numpy(INPUT["t"][:, 0]).long()
LABEL, MASK_NOISE = torch.from_numpy(INPUT["y"]).long(), torch.from_numpy(INPUT["mask_noise"])
# For the images at t = 0, 1, 500 and 1000. At large t the sines of large angles lose digits in float32.
TOLERANCE = [5e-6, 5e-6, 5e-5, 5e-5]
SMALL = ModelConfig(patch=4, width=48, depth=2, decoder_depth=1, heads=3)


def close(actual: Tensor, tag: str, name: str) -> bool:
    return all(error < limit for error, limit in zip(worst_by_row(actual, arrays(f"fwd_{tag}")[name]), TOLERANCE, strict=True))


def prediction(out: tuple[Tensor, ...]) -> Tensor:
    return torch.cat(out[:2], dim=1).permute(0, 2, 3, 1)


@pytest.mark.parametrize("ratio", [0.0, 0.375, 0.75])
@pytest.mark.parametrize("tag", TAGS)
def test_forward_equals_the_official_one(tag: str, ratio: float) -> None:
    name = f"m{int(ratio * 1000):03d}"
    label = LABEL if tag.endswith("nc10") else None
    out = tiny_model(tag)(IMAGE, T, mask_noise=MASK_NOISE, mask_ratio=ratio, label=label)
    assert close(prediction(out), tag, f"pred_{name}")
    assert close(out.representation, tag, f"rep_{name}")
    expected = arrays(f"fwd_{tag}").get(f"seqmask_{name}")
    assert torch.equal(out.mask, torch.zeros(4, 16) if expected is None else torch.from_numpy(expected))


@pytest.mark.parametrize("tag", TAGS)
def test_the_parts_equal_the_official_ones(tag: str) -> None:
    model, expected = tiny_model(tag), arrays(f"fwd_{tag}")
    c = model.condition(T, LABEL if tag.endswith("nc10") else None)
    representation, tokens = model.encode(model.embed(IMAGE), c)
    assert close(timestep_embedding(T, 48), tag, "sinusoid")
    assert close(c, tag, "embed_cond")
    assert worst(model.embed(IMAGE) - model.pos_embed, expected["embed_x"]) < 1e-6
    assert close(representation, tag, "encode_rep")
    assert close(tokens, tag, "encode_tokens")


def test_attention_by_products_in_bf16_is_close_to_the_fused_kernel_in_fp32() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randn(2, 3, 17, 16, generator=generator).bfloat16() for _ in range(3)]

    def value_and_gradients(dtype: torch.dtype) -> list[Tensor]:
        inputs = [x.to(dtype, copy=True).requires_grad_() for x in rows]
        out = attend(*inputs)
        out.backward(rows[0].to(dtype))
        return [out, *(x.grad for x in inputs if x.grad is not None)]

    for ours, exact in zip(value_and_gradients(torch.bfloat16), value_and_gradients(torch.float32), strict=True):
        torch.testing.assert_close(ours.float(), exact, rtol=0.02, atol=0.05)


@pytest.mark.parametrize("tag", TAGS)
def test_the_output_and_the_parts_of_the_block_equal_the_official_ones(tag: str) -> None:
    model, expected = tiny_model(tag), arrays(f"fwd_{tag}")
    block, x = model.blocks[0], torch.from_numpy(expected["block0_in"])
    c = model.condition(T, LABEL if tag.endswith("nc10") else None)
    assert close(block(x, c), tag, "block0_out")
    if block.modulation is None:
        x = torch.cat([c.unsqueeze(1), x], dim=1)
        attended = block.attn(block.norm1(x))
        moved = block.mlp(block.norm2(x + attended))
    else:
        shift0, scale0, gate0, shift1, scale1, _ = block.modulation(c).unsqueeze(1).chunk(6, dim=2)
        attended = block.attn(modulate(block.norm1(x), shift0, scale0))
        moved = block.mlp(modulate(block.norm2(x + gate0 * attended), shift1, scale1))
    assert close(attended, tag, "block0_sa")
    assert close(moved, tag, "block0_mlp")


@pytest.mark.parametrize("tag", TAGS)
def test_time_0_is_clean_and_no_label_is_the_null_label(tag: str) -> None:
    out = tiny_model(tag)(IMAGE, torch.zeros(4, dtype=torch.int64))
    assert max(worst_by_row(prediction(out), arrays(f"fwd_{tag}")["pred_tnone_ynone"])) < 1e-6
    if tag.endswith("nc10"):
        assert close(prediction(tiny_model(tag)(IMAGE, T)), tag, "pred_ynull")
        assert close(prediction(tiny_model(tag)(IMAGE, T, label=torch.full((4,), 10))), tag, "pred_ynull")


@pytest.mark.parametrize("tag", TAGS)
def test_a_time_that_all_images_share_may_be_given_once(tag: str) -> None:
    model = tiny_model(tag)
    for once, each in zip(model(IMAGE, T[2:3]), model(IMAGE, T[2].expand(4)), strict=True):
        torch.testing.assert_close(once, each, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tag", TAGS)
def test_removed_pixels_do_not_change_the_output(tag: str) -> None:
    model = tiny_model(tag)
    out = model(IMAGE, T, mask_noise=MASK_NOISE, mask_ratio=0.75)
    removed = out.mask.view(4, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    other = model(torch.where(removed > 0, 7.0, IMAGE), T, mask_noise=MASK_NOISE, mask_ratio=0.75)
    assert out.mask.sum(dim=1).tolist() == [12] * 4
    assert torch.equal(out.x_0, other.x_0)
    assert torch.equal(out.representation, other.representation)


def test_the_representation_is_that_of_the_whole_image_without_label() -> None:
    model = tiny_model("adaln1_nc10")
    assert torch.equal(model.represent(IMAGE, T), model(IMAGE, T).representation)


def test_the_representation_of_a_block_is_that_of_the_model_that_ends_there() -> None:
    model = tiny_model("adaln1_nc10")
    shallow = tiny_model("adaln1_nc10")
    shallow.blocks = shallow.blocks[:1]
    assert torch.equal(model.represent(IMAGE, T, block=1), shallow.represent(IMAGE, T))
    assert torch.equal(model.represent(IMAGE, T, block=len(model.blocks)), model.represent(IMAGE, T))
    assert not torch.allclose(model.represent(IMAGE, T, block=1), model.represent(IMAGE, T), atol=0.1)


def test_every_pool_is_the_mean_of_its_tokens() -> None:
    model = tiny_model("adaln1_nc10")
    _, patches = model.encode(model.embed(IMAGE), model.condition(T, None))
    assert torch.equal(model.represent(IMAGE, T, pool="patches"), patches.mean(dim=1))
    assert torch.equal(model.represent(IMAGE, T, pool="class"), model.represent(IMAGE, T))
    first = model.represent(IMAGE, T, pool="first_class")
    model.norm.weight.data.zero_()
    model.norm.bias.data.fill_(2.0)
    assert torch.equal(model.represent(IMAGE, T, pool="first_class"), torch.full_like(first, 2.0))  # after the norm
    assert not torch.allclose(first, tiny_model("adaln1_nc10").represent(IMAGE, T), atol=1e-3)


SIZES = {
    "S/4": (ModelConfig(patch=4, width=384, depth=12, decoder_depth=4, heads=6), 64, 3),
    "B/4": (ModelConfig(patch=4, width=768, depth=12, decoder_depth=4, heads=12), 64, 3),
    "L/2": (ModelConfig(patch=2, width=1024, depth=24, decoder_depth=8, heads=16), 32, 4),
}


@pytest.mark.parametrize(
    ("size", "adaln", "classes", "count"),
    [
        ("S/4", True, 0, 43_726_470),
        ("B/4", True, 0, 174_157_062),
        ("L/2", True, 0, 611_482_632),
        ("S/4", True, 1000, 44_701_830),
        ("B/4", True, 1000, 177_287_430),
        ("L/2", True, 1000, 616_705_032),
        ("S/4", False, 0, 29_238_150),
        ("B/4", False, 0, 116_279_046),
        ("L/2", False, 0, 407_860_232),
    ],
)
def test_parameter_counts_are_the_papers_on_the_meta_device(size: str, adaln: bool, classes: int, count: int) -> None:
    config, side, channels = SIZES[size]
    with torch.device("meta"):
        model = AutoEncoder(config.model_copy(update={"adaln": adaln}), size=side, channels=channels, classes=classes)
    assert sum(p.numel() for p in model.parameters()) == count
    if (size, adaln) == ("S/4", True):
        assert sum(p.numel() for part in (model.blocks, model.norm) for p in part.parameters()) == 31_938_816
        assert sum(p.numel() for part in (model.decoder_blocks, model.decoder_norm) for p in part.parameters()) == 10_646_784


def test_the_block_without_adaln_equals_timms() -> None:
    timm = pytest.importorskip("timm.models.vision_transformer")
    ours = Block(48, 3, adaln=False)
    norm, gelu = partial(torch.nn.LayerNorm, eps=1e-6), partial(torch.nn.GELU, approximate="tanh")
    theirs = timm.Block(48, 3, qkv_bias=True, norm_layer=norm, act_layer=gelu)
    assert theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(ours(x[:, 1:], x[:, :1].mean(1)), theirs(torch.cat([x[:, :1], x[:, 1:]], 1))[:, 1:])


def test_a_patch_that_does_not_divide_the_image_side_is_refused() -> None:
    with pytest.raises(FieldError, match=r"model\.patch = 4 is not accepted: expected a divisor of the image side 18"):
        AutoEncoder(SMALL, size=18, channels=3)


def test_equal_shapes_get_equal_initial_weights_without_the_global_generator() -> None:
    before = torch.get_rng_state()
    one = build_model(SMALL, size=16, channels=3, seed=5).state_dict()
    deeper = SMALL.model_copy(update={"depth": 3})
    other = build_model(deeper, size=16, channels=3, classes=10, seed=5).state_dict()
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    third = build_model(SMALL, size=16, channels=3, seed=6).state_dict()
    assert not torch.equal(one["blocks.0.attn.qkv.weight"], third["blocks.0.attn.qkv.weight"])
    assert not torch.equal(one["blocks.0.attn.qkv.weight"], one["blocks.1.attn.qkv.weight"])
    assert torch.equal(before, torch.get_rng_state())


def test_initial_weights_have_the_official_scales() -> None:
    config = ModelConfig(patch=4, width=192, depth=1, decoder_depth=1, heads=3)
    weights = build_model(config, size=32, channels=3, classes=10, seed=0).state_dict()
    deviations = {
        "patch_embed.proj.weight": 1 / math.sqrt(48),
        "pos_embed": 1 / math.sqrt(64),
        "decoder_pos_embed": 1 / math.sqrt(64),
        "time_embed.fc1.weight": 1 / math.sqrt(192),
        "time_embed.fc2.weight": 1 / math.sqrt(384),
        "label_embed.fc1.weight": 1 / math.sqrt(192),
        "label_embed.table.weight": 1 / math.sqrt(192),
        "blocks.0.attn.qkv.weight": 1 / math.sqrt(192),  # Xavier for each of q, k, v; the joint matrix would have 1/sqrt(2 w)
        "blocks.0.attn.proj.weight": 1 / math.sqrt(192),
        "blocks.0.mlp.fc1.weight": math.sqrt(2 / (5 * 192)),
        "decoder_blocks.0.mlp.fc2.weight": math.sqrt(2 / (5 * 192)),
        "blocks.0.mlp.fc1.bias": 1e-6,
        "mask_token": 0.02,
        "head.weight": 0.02,
    }
    for name, value in weights.items():
        if name in deviations:
            assert value.std().item() == pytest.approx(deviations[name], rel=0.12), name
        elif name.endswith(("norm1.weight", "norm2.weight", "norm.weight")):
            assert (value == 1).all(), name
        elif name.endswith("mlp.fc2.bias") or name.endswith("mlp.fc1.bias"):
            assert 0 < value.abs().max() < 1e-5, name
        elif not name.endswith(("fc1.weight", "fc2.weight", "qkv.weight", "proj.weight")):
            assert (value == 0).all(), name
    lecun = weights["patch_embed.proj.weight"]
    assert lecun.abs().max() < 2.3 / math.sqrt(48)  # truncated at two standard deviations
