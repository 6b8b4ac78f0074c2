"""Convert parameters of the official JAX implementation (small-vision, commit 3d4555b) to ours and back, exactly.

Official names are joined by '/'. Parameters of blocks are stacked over layers on axis 0, dense kernels are [in, out], attention
kernels have heads as an axis, and the final transposed convolution's kernel is flipped in space.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]

_TABLES = {
    "cls": "cls_token",
    "pos_embedding": "pos_embed",
    "dec_pos_embedding": "decoder_pos_embed",
    "image_mask_embedding": "mask_token",
    "label_emb/embedding/embedding": "label_embed.table.weight",
}
_MODULES = {
    "embedding": "patch_embed.proj",
    "time_trunk/Dense_0": "time_embed.fc1",
    "time_trunk/Dense_1": "time_embed.fc2",
    "label_trunk/Dense_0": "label_embed.fc1",
    "label_trunk/Dense_1": "label_embed.fc2",
    "Encoder/encoder_norm": "norm",
    "Decoder/encoder_norm": "decoder_norm",
    "final_modulation": "final_modulation",
    "final_conv": "head",
}
_STACKS = {
    "Encoder/ScanCheckpointEncoder1DBlock_0/": "blocks.",
    "Decoder/ScanCheckpointEncoder1DBlock_0/": "decoder_blocks.",
}
_ATTENTION = "MultiHeadDotProductAttention_0/"
_QKV = ("query", "key", "value")
_BLOCK = {
    "LayerNorm_0": "norm1",
    "LayerNorm_1": "norm2",
    "MlpBlock_0/Dense_0": "mlp.fc1",
    "MlpBlock_0/Dense_1": "mlp.fc2",
    "Dense_0": "modulation",
    _ATTENTION + "out": "attn.proj",
}


def from_official(params: Mapping[str, Array]) -> dict[str, Tensor]:
    """Official parameters as a state dict of :class:`~umd_bench.engine.networks.auto_encoder.AutoEncoder`.

    Raises ``KeyError`` for an unknown name.
    """
    state: dict[str, Tensor] = {}
    for name, value in params.items():
        stack = next((s for s in _STACKS if name.startswith(s)), None)
        if stack is None:
            if name in _TABLES:
                state[_TABLES[name]] = _tensor(value)
            else:
                module, leaf = name.rsplit("/", 1)
                state[_name(_MODULES[module], leaf)] = _tensor(_to_torch(module, leaf, value))
            continue
        module, leaf = name.removeprefix(stack).rsplit("/", 1)
        for i, layer in enumerate(value):
            block = f"{_STACKS[stack]}{i}."
            if module == _ATTENTION + "query":
                parts = [params[f"{stack}{_ATTENTION}{part}/{leaf}"][i] for part in _QKV]
                state[_name(block + "attn.qkv", leaf)] = _tensor(np.concatenate([_to_torch("query", leaf, p) for p in parts]))
            elif module in _BLOCK:
                state[_name(block + _BLOCK[module], leaf)] = _tensor(_to_torch(module, leaf, layer))
            elif module.removeprefix(_ATTENTION) not in _QKV:
                raise KeyError(name)
    return state


def to_official(state: Mapping[str, Tensor], heads: int) -> dict[str, Array]:
    """The inverse of :func:`from_official` for a model with ``heads`` attention heads: float32 arrays by official name."""
    arrays = {name: value.detach().cpu().numpy() for name, value in state.items()}
    params = {official: arrays[ours] for official, ours in _TABLES.items() if ours in arrays}
    for module, ours in _MODULES.items():
        for leaf in ("kernel", "scale", "bias"):
            if (leaf == "scale") == module.endswith("norm") or leaf == "bias":
                name = _name(ours, leaf)
                if name in arrays:
                    params[f"{module}/{leaf}"] = _to_flax(module, leaf, arrays[name], heads)
    for stack, prefix in _STACKS.items():
        depth = 1 + max(int(name.removeprefix(prefix).split(".")[0]) for name in arrays if name.startswith(prefix))
        for module, ours in [*_BLOCK.items(), *((_ATTENTION + part, "attn.qkv") for part in _QKV)]:
            for leaf in ("scale", "bias") if module.startswith("LayerNorm") else ("kernel", "bias"):
                if _name(f"{prefix}0.{ours}", leaf) in arrays:
                    layers = [arrays[_name(f"{prefix}{i}.{ours}", leaf)] for i in range(depth)]
                    params[f"{stack}{module}/{leaf}"] = np.stack([_to_flax(module, leaf, layer, heads) for layer in layers])
    return params


def _name(module: str, leaf: str) -> str:
    return f"{module}.{'bias' if leaf == 'bias' else 'weight'}"


def _tensor(value: Array) -> Tensor:
    return torch.from_numpy(np.array(value, dtype=np.float32, order="C"))


def _to_torch(module: str, leaf: str, value: Array) -> Array:
    """One flax leaf of one layer in torch's layout."""
    kind = module.removeprefix(_ATTENTION)
    match kind, leaf:
        case "embedding", "kernel":
            return value.transpose(3, 2, 0, 1)  # [p, p, C, D] -> [D, C, p, p]
        case "final_conv", "kernel":
            return value[::-1, ::-1].transpose(2, 3, 0, 1)  # [p, p, D, 2C] flipped -> [D, 2C, p, p]
        case "out", "kernel":
            return value.reshape(-1, value.shape[-1]).T  # [heads, head_dim, D] -> [D, heads head_dim]
        case (("query" | "key" | "value"), "kernel"):
            return value.reshape(value.shape[0], -1).T  # [D, heads, head_dim] -> [heads head_dim, D]
        case (("query" | "key" | "value"), "bias"):
            return value.reshape(-1)
        case _, "kernel":
            return value.T
    return value


def _to_flax(module: str, leaf: str, value: Array, heads: int) -> Array:
    """The inverse of :func:`_to_torch`; for q, k and v, ``value`` is the joint tensor of the three."""
    kind = module.removeprefix(_ATTENTION)
    if kind in _QKV:
        value = np.split(value, 3)[_QKV.index(kind)]
    match kind, leaf:
        case "embedding", "kernel":
            return value.transpose(2, 3, 1, 0)
        case "final_conv", "kernel":
            return value.transpose(2, 3, 0, 1)[::-1, ::-1]
        case "out", "kernel":
            return value.T.reshape(heads, -1, value.shape[0])
        case (("query" | "key" | "value"), "kernel"):
            return value.T.reshape(value.shape[1], heads, -1)
        case (("query" | "key" | "value"), "bias"):
            return value.reshape(heads, -1)
        case _, "kernel":
            return value.T
    return value
