"""Checkpoints in the layouts of other projects: the published names and shapes, with random weights."""

from __future__ import annotations

import torch
from torch import Tensor

State = dict[str, Tensor]


def _drawn(shapes: dict[str, tuple[int, ...]], std: float) -> State:
    """Random values for every parameter, norms and biases too, so that a test notices if the model ignores a parameter."""
    generator = torch.Generator().manual_seed(0)
    return {name: std * torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def _blocks(depth: int, D: int) -> dict[str, tuple[int, ...]]:
    block = {
        "attn.qkv.weight": (3 * D, D),
        "attn.qkv.bias": (3 * D,),
        "attn.proj.weight": (D, D),
        "attn.proj.bias": (D,),
        "mlp.fc1.weight": (4 * D, D),
        "mlp.fc1.bias": (4 * D,),
        "mlp.fc2.weight": (D, 4 * D),
        "mlp.fc2.bias": (D,),
    }
    return {f"blocks.{i}.{name}": shape for i in range(depth) for name, shape in block.items()}


def mae_state(*, width: int = 24, depth: int = 2, patch: int = 4, size: int = 16, channels: int = 3) -> State:
    """A pre-trained encoder as facebookresearch/mae releases it."""
    D = width
    norms = [f"blocks.{i}.{norm}" for i in range(depth) for norm in ("norm1", "norm2")] + ["norm"]
    return _drawn(
        {
            "cls_token": (1, 1, D),
            "pos_embed": (1, 1 + (size // patch) ** 2, D),
            "patch_embed.proj.weight": (D, channels, patch, patch),
            "patch_embed.proj.bias": (D,),
            **_blocks(depth, D),
            **{f"{norm}.{leaf}": (D,) for norm in norms for leaf in ("weight", "bias")},
        },
        0.3,
    )


def dit_state(*, width: int = 24, depth: int = 2, patch: int = 2, size: int = 8, channels: int = 1, classes: int = 10) -> State:
    """A model as facebookresearch/DiT releases it, with a learned variance."""
    D = width
    return _drawn(
        {
            "x_embedder.proj.weight": (D, channels, patch, patch),
            "x_embedder.proj.bias": (D,),
            "pos_embed": (1, (size // patch) ** 2, D),
            "t_embedder.mlp.0.weight": (D, 256),
            "t_embedder.mlp.0.bias": (D,),
            "t_embedder.mlp.2.weight": (D, D),
            "t_embedder.mlp.2.bias": (D,),
            "y_embedder.embedding_table.weight": (classes + 1, D),
            **_blocks(depth, D),
            **{f"blocks.{i}.adaLN_modulation.1.weight": (6 * D, D) for i in range(depth)},
            **{f"blocks.{i}.adaLN_modulation.1.bias": (6 * D,) for i in range(depth)},
            "final_layer.adaLN_modulation.1.weight": (2 * D, D),
            "final_layer.adaLN_modulation.1.bias": (2 * D,),
            "final_layer.linear.weight": (patch * patch * 2 * channels, D),
            "final_layer.linear.bias": (patch * patch * 2 * channels,),
        },
        0.2,
    )


def attention(state: State, block: str, x: Tensor, heads: int) -> Tensor:
    """softmax(q k / sqrt(head_dim)) v, written out. [B, N, D] -> [B, N, D]."""
    B, N, D = x.shape
    q, k, v = (x @ state[block + "attn.qkv.weight"].T + state[block + "attn.qkv.bias"]).chunk(3, dim=2)
    q, k, v = (part.reshape(B, N, heads, D // heads).transpose(1, 2) for part in (q, k, v))
    weights = (q @ k.transpose(2, 3) / (D // heads) ** 0.5).softmax(dim=3)
    mixed = (weights @ v).transpose(1, 2).reshape(B, N, D)
    return mixed @ state[block + "attn.proj.weight"].T + state[block + "attn.proj.bias"]
