"""An MAE encoder from a published layout agrees with an independent forward pass, though its images are in [-1, 1]."""

from __future__ import annotations

from typing import Literal

import pytest
import timm
import torch
import torch.nn.functional as F
from engine.published.published_files import State, attention, mae_state
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.engine.families import position
from umd_bench.engine.published.mae import MEAN, STD, MaeEncoder, read_mae

HEADS = 3
T = torch.zeros(4, dtype=torch.int64)


def images() -> Tensor:
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def normalised(x: Tensor) -> Tensor:
    """What the official pipeline does: map to [0, 1], then normalise by ImageNet's mean and standard deviation."""
    return ((x + 1) / 2 - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def encoder(state: State, pool: Literal["class", "patches"] = "class") -> MaeEncoder:
    weights = read_mae(state, heads=HEADS)
    model = MaeEncoder(weights.model, size=weights.size, channels=weights.channels, pool=pool)
    model.load_state_dict(weights.state)
    return model.eval()


def forward(state: State, x: Tensor) -> Tensor:
    """MaskedAutoencoderViT's encoder without a mask, written from its description. -> tokens after the norm [B, 1 + L, D]."""
    D = state["cls_token"].shape[2]

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, (D,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    tokens = F.conv2d(x, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=4).flatten(2).transpose(1, 2)
    x = torch.cat([state["cls_token"].expand(len(x), -1, -1), tokens], dim=1) + state["pos_embed"]
    for i in range(2):
        b = f"blocks.{i}."
        x = x + attention(state, b, norm(x, b + "norm1"), HEADS)
        hidden = norm(x, b + "norm2") @ state[b + "mlp.fc1.weight"].T + state[b + "mlp.fc1.bias"]
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        x = x + hidden @ state[b + "mlp.fc2.weight"].T + state[b + "mlp.fc2.bias"]
    return norm(x, "norm")


def test_the_class_token_equals_that_of_the_independent_forward_pass() -> None:
    state = mae_state()
    expected = forward(state, normalised(images()))[:, 0]
    torch.testing.assert_close(encoder(state).represent(images(), T), expected, rtol=1e-5, atol=1e-5)


def test_the_mean_of_patches_equals_that_of_the_independent_forward_pass() -> None:
    state = mae_state()
    expected = forward(state, normalised(images()))[:, 1:].mean(dim=1)
    torch.testing.assert_close(encoder(state, "patches").represent(images(), T), expected, rtol=1e-5, atol=1e-5)


def test_another_pool_and_block_are_read_from_the_same_weights() -> None:
    state = mae_state()
    model = encoder(state)
    assert torch.equal(model.represent(images(), T, pool="patches"), encoder(state, "patches").represent(images(), T))
    first = {name: value for name, value in state.items() if not name.startswith("blocks.1.")}
    torch.testing.assert_close(model.represent(images(), T, block=1), encoder(first).represent(images(), T))
    assert position(model, block=None, pool=None) == "class token"
    assert position(model, block=1, pool="class") == "class token after block 1 of 2"
    assert position(model, block=2, pool="patches") == "mean of patch tokens"


def test_timms_vision_transformer_gives_the_same_representation() -> None:
    state = mae_state()
    vit = timm.create_model(
        "vit_base_patch16_224", img_size=16, patch_size=4, embed_dim=24, depth=2, num_heads=HEADS, num_classes=0
    ).eval()
    vit.load_state_dict(state)
    torch.testing.assert_close(encoder(state).represent(images(), T), vit(normalised(images())), rtol=1e-5, atol=1e-5)


def test_the_decoder_of_a_full_checkpoint_is_left_out_with_a_note() -> None:
    state = mae_state()
    extra = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_embed.weight": torch.zeros(8, 24),
        "decoder_pred.bias": torch.zeros(8),
    }
    weights = read_mae(state | extra, heads=HEADS)
    assert weights.state.keys() == state.keys()
    assert any("3 tensors of the decoder are left out" in note for note in weights.notes)


def test_the_shapes_determine_the_architecture() -> None:
    weights = read_mae(mae_state(width=384, depth=3, patch=2, size=8))
    assert (weights.model.width, weights.model.depth, weights.model.heads, weights.model.patch) == (384, 3, 6, 2)
    assert (weights.size, weights.channels, weights.classes) == (8, 3, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"blocks.1.attn.qkv.bias": None}, r"'blocks.1.attn.qkv.bias' is missing"),
        (
            {"blocks.1.mlp.fc1.weight": torch.zeros(90, 24)},
            r"'blocks.1.mlp.fc1.weight' has the shape \[90, 24\]: expected \[96, 24\]",
        ),
        ({"head.weight": torch.zeros(10, 24)}, r"'head.weight' is unknown to the layout mae"),
        ({"pos_embed": torch.zeros(1, 12, 24)}, r"'pos_embed' has 11 positions of patches: expected a square"),
        ({"pos_embed": torch.zeros(17, 24)}, r"'pos_embed' has the shape \[17, 24\]: expected \[1, patches\+1, width\]"),
        ({"patch_embed.proj.weight": torch.zeros(24, 1, 4, 4)}, "takes 1 channels: expected 3"),
    ],
)
def test_the_error_names_a_wrong_parameter(change: dict[str, Tensor | None], message: str) -> None:
    state = {name: value for name, value in (mae_state() | change).items() if value is not None}
    with pytest.raises(UserError, match=message):
        read_mae(state, heads=HEADS)


def test_heads_of_an_unknown_width_must_be_given() -> None:
    with pytest.raises(UserError, match=r"width 24 .* give --heads"):
        read_mae(mae_state())
    with pytest.raises(UserError, match="heads = 5 is not accepted: expected a divisor of the width 24"):
        read_mae(mae_state(), heads=5)
