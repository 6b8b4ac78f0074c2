"""A DiT from a published layout agrees with a forward pass written from the paper, and this project's samplers draw from it."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from engine.published.published_files import State, attention, dit_state
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.families import position
from umd_bench.engine.published.dit import NOISE, DiT, read_dit
from umd_bench.engine.samplers import generate

HEADS = 3
CLASSES = 10


def model_of(state: State) -> DiT:
    weights = read_dit(state, heads=HEADS)
    model = DiT(weights.model, size=weights.size, channels=weights.channels, classes=weights.classes)
    model.load_state_dict(weights.state)
    return model.eval().requires_grad_(requires_grad=False)


def images(channels: int = 1) -> Tensor:
    return torch.randn(4, channels, 8, 8, generator=torch.Generator().manual_seed(1))


def forward(state: State, x: Tensor, index: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """DiT's forward pass, written from its published description, at schedule indices: the tokens before the final layer, and
    the final layer's output."""
    B, C = x.shape[:2]
    D = state["pos_embed"].shape[2]

    def dense(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        return F.layer_norm(x, (D,), eps=1e-6) * (1 + scale[:, None]) + shift[:, None]

    angle = index[:, None].float() * torch.exp(-math.log(10000) * torch.arange(128) / 128)
    time = dense(F.silu(dense(torch.cat([angle.cos(), angle.sin()], dim=1), "t_embedder.mlp.0")), "t_embedder.mlp.2")
    c = F.silu(time + state["y_embedder.embedding_table.weight"][label])
    x = F.conv2d(x, state["x_embedder.proj.weight"], state["x_embedder.proj.bias"], stride=2).flatten(2).transpose(1, 2)
    x = x + state["pos_embed"]
    for i in range(2):
        b = f"blocks.{i}."
        shift_msa, scale_msa, gate_msa, shift_mlp, scale_mlp, gate_mlp = dense(c, b + "adaLN_modulation.1").chunk(6, dim=1)
        x = x + gate_msa[:, None] * attention(state, b, norm(x, shift_msa, scale_msa), HEADS)
        hidden = F.gelu(dense(norm(x, shift_mlp, scale_mlp), b + "mlp.fc1"), approximate="tanh")
        x = x + gate_mlp[:, None] * dense(hidden, b + "mlp.fc2")
    shift, scale = dense(c, "final_layer.adaLN_modulation.1").chunk(2, dim=1)
    out = dense(norm(x, shift, scale), "final_layer.linear")
    picture = torch.empty(B, 2 * C, 8, 8)
    for row in range(4):
        for column in range(4):
            patch = out[:, 4 * row + column].reshape(B, 2, 2, 2 * C)  # the channel runs fastest
            picture[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2] = patch.permute(0, 3, 1, 2)
    return x, picture


@pytest.mark.parametrize("channels", [1, 4])
def test_eps_is_the_first_half_of_the_published_output_at_schedule_index_t_minus_1(channels: int) -> None:
    state = dit_state(channels=channels)
    t, label = torch.tensor([1, 51, 400, 1000]), torch.tensor([0, 3, 9, CLASSES])
    _, expected = forward(state, images(channels), t - 1, label)
    out = model_of(state)(images(channels), t, label=label)
    torch.testing.assert_close(out.target, expected[:, :channels], rtol=1e-5, atol=1e-5)


def test_without_a_label_the_model_uses_the_last_row_of_the_table() -> None:
    state, t = dit_state(), torch.tensor([51])
    null = torch.full((4,), CLASSES)
    _, expected = forward(state, images(), t.expand(4) - 1, null)
    torch.testing.assert_close(model_of(state)(images(), t).target, expected[:, :1], rtol=1e-5, atol=1e-5)


def test_x_0_and_eps_give_back_x_t_under_dits_schedule() -> None:
    t = torch.tensor([1, 51, 400, 700])
    out = model_of(dit_state())(images(), t)
    back = NoiseProcess(NOISE).q_sample(out.x_0, t, out.target)
    torch.testing.assert_close(back, images(), rtol=1e-4, atol=1e-4)


def test_the_representation_is_the_mean_of_the_patches_after_the_last_block() -> None:
    state, t = dit_state(), torch.full((4,), 51)
    tokens, _ = forward(state, images(), t - 1, torch.full((4,), CLASSES))
    model = model_of(state)
    torch.testing.assert_close(model.represent(images(), t), tokens.mean(dim=1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model(images(), t).representation, tokens.mean(dim=1), rtol=1e-5, atol=1e-5)


def test_an_earlier_block_can_be_read_and_class_tokens_are_refused() -> None:
    state, t = dit_state(), torch.full((4,), 51)
    model = model_of(state)
    shallow = model_of(state)
    shallow.blocks = shallow.blocks[:1]
    assert torch.equal(model.represent(images(), t, block=1, pool="patches"), shallow.represent(images(), t))
    assert position(model, block=1, pool=None) == "mean of patch tokens after block 1 of 2"
    assert position(model, block=2, pool="patches") == model.position
    with pytest.raises(UserError, match="a DiT has no class tokens: its pool is patches, not class"):
        model.represent(images(), t, pool="class")


def test_a_clean_image_is_refused() -> None:
    with pytest.raises(UserError, match="no input for clean images"):
        model_of(dit_state()).represent(images(), torch.zeros(4, dtype=torch.int64))


def test_guided_samples_follow_the_label_and_the_guidance() -> None:
    model, schedule = model_of(dit_state()), NoiseProcess(NOISE)

    def drawn(label: int, cfg_scale: float) -> Tensor:
        stage = GenerateStage(parent="import", n=3, steps=4, cfg_scale=cfg_scale, extractor="none")
        return generate(model, schedule, stage, label=torch.full((3,), label), indices=range(3), seed=0)

    plain = drawn(2, 1.0)
    assert plain.shape == (3, 1, 8, 8)
    assert plain.isfinite().all()
    assert not torch.equal(plain, drawn(3, 1.0))
    assert not torch.equal(plain, drawn(2, 3.0))


def test_the_shapes_determine_the_architecture() -> None:
    weights = read_dit(dit_state(width=384, depth=3, channels=4, classes=7))
    assert (weights.model.width, weights.model.depth, weights.model.heads, weights.model.patch) == (384, 3, 6, 2)
    assert (weights.size, weights.channels, weights.classes) == (8, 4, 7)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"final_layer.linear.bias": None}, r"'final_layer.linear.bias' is missing"),
        (
            {"final_layer.linear.weight": torch.zeros(4, 24)},
            r"'final_layer.linear.weight' has the shape \[4, 24\]: expected \[8, 24\]",
        ),
        ({"blocks.0.norm1.weight": torch.zeros(24)}, r"'blocks.0.norm1.weight' is unknown to the layout dit"),
        ({"t_embedder.mlp.0.weight": torch.zeros(24, 128)}, r"'t_embedder.mlp.0.weight' has the shape"),
    ],
)
def test_the_error_names_a_wrong_parameter(change: dict[str, Tensor | None], message: str) -> None:
    state = {name: value for name, value in (dit_state() | change).items() if value is not None}
    with pytest.raises(UserError, match=message):
        read_dit(state, heads=HEADS)
