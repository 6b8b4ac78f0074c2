"""Convert a trained encoder to a plain timm ``VisionTransformer`` with the same representation.

At t = 0 and without a label the condition is one vector for all images, so every modulation is a constant of its layer:
``(LN(x) w + b)(1 + scale) + shift`` is a LayerNorm with other weights, and a gate is timm's LayerScale.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.trial.model import ModelConfig
from umd_bench.engine.families import Evaluated
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.published.mae import MaeEncoder

ARCHITECTURE = "vit_base_patch16_224"  # any plain ViT of timm: the arguments set everything that matters


@dataclass(frozen=True)
class TimmViT:
    """``model = timm.create_model(ARCHITECTURE, **args)`` with the weights ``state``, float32.

    ``representation`` is the Python expression for the representation of images ``x``.
    """

    args: dict[str, Any]
    state: dict[str, Tensor]
    representation: str


@torch.no_grad()
def to_timm(model: Evaluated, config: ModelConfig, *, size: int, channels: int) -> TimmViT:
    """The encoder of ``model`` at t = 0, without a label, for images [B, C, H, W] in [-1, 1].

    Raises :class:`UserError` for a model that timm's ViT cannot express.
    """
    shape = {
        "img_size": size,
        "patch_size": config.patch,
        "in_chans": channels,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "num_classes": 0,
    }
    match model:
        case MaeEncoder(pool="class"):
            return TimmViT(shape | {"global_pool": "token"}, _contiguous(model.state_dict()), "model(x)")
        case MaeEncoder():
            args = shape | {"global_pool": "avg", "fc_norm": False}
            return TimmViT(args, _contiguous(model.state_dict()), "model(x)")
        case AutoEncoder():
            return _fold(model, config, shape)
    raise UserError(
        f"the family {config.family} cannot be written for timm: its blocks are conditioned by a time that is never 0, "
        "and timm's ViT takes none"
    )


def _fold(model: AutoEncoder, config: ModelConfig, shape: dict[str, Any]) -> TimmViT:
    if not config.adaln:
        raise UserError(
            "a model without adaLN cannot be written for timm: every block takes the time as one more token and drops it "
            "again, which timm's ViT cannot express; expected a run with model.adaln"
        )
    n = config.class_tokens
    c = model.condition(torch.zeros(1, dtype=torch.int64, device=model.pos_embed.device), None).double()
    state: dict[str, Tensor] = {
        "cls_token": model.cls_token[:, :1],
        "pos_embed": model.pos_embed,
        **model.patch_embed.state_dict(prefix="patch_embed."),
        **model.norm.state_dict(prefix="norm."),
    }
    if n > 1:
        state["reg_token"] = model.cls_token[:, 1:]
    for i, block in enumerate(model.blocks):
        own = block.state_dict(prefix=f"blocks.{i}.")
        weight, bias = (own.pop(f"blocks.{i}.modulation.{leaf}").double() for leaf in ("weight", "bias"))
        shift0, scale0, gate0, shift1, scale1, gate1 = (c @ weight.T + bias)[0].chunk(6)
        for norm, shift, scale in (("norm1", shift0, scale0), ("norm2", shift1, scale1)):
            name = f"blocks.{i}.{norm}."
            own[name + "weight"] = own[name + "weight"].double() * (1 + scale)
            own[name + "bias"] = own[name + "bias"].double() * (1 + scale) + shift
        state |= own | {f"blocks.{i}.ls1.gamma": gate0, f"blocks.{i}.ls2.gamma": gate1}
    args = shape | {
        "class_token": True,
        "reg_tokens": n - 1,
        "no_embed_class": True,  # class tokens have no position
        "init_values": 1.0,  # LayerScale, overwritten by the gates
        "act_layer": "gelu_tanh",
        "global_pool": "token" if n == 1 else "",
    }
    return TimmViT(args, _contiguous(state), "model(x)" if n == 1 else f"model.forward_features(x)[:, :{n}].mean(1)")


def _contiguous(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach().float().cpu().contiguous() for name, value in state.items()}
