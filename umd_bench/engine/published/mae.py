"""MAE's encoder as its authors published it (facebookresearch/mae, ``MaskedAutoencoderViT``; He et al., arXiv 2111.06377).

It has no input for noise or time, and the released files leave out the decoder. So it can be probed but not sampled.
Shapes: B batch, L patches, N tokens, D width, p patch side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umd_bench.config.errors import UserError
from umd_bench.config.trial.model import ModelConfig
from umd_bench.engine.networks.auto_encoder import PatchEmbedding
from umd_bench.engine.networks.blocks import LAYER_NORM_EPS, Attention
from umd_bench.engine.published.shapes import Weights, grid_side, heads_of, layers, require_shapes, shape_of

NAME = "mae"
HEADS = {384: 6, 768: 12, 1024: 16, 1280: 16}  # by width, for the authors' models and timm's small one
# ImageNet's mean and standard deviation of RGB in [0, 1]; the official data pipeline normalises with them.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


class MaeEncoder(nn.Module):
    """A plain pre-LN ViT with one class token and fixed positions; parameters have the official names.

    ``pool`` says which tokens are the representation: with ``class`` it is the class token after the norm (as in the official
    linear probe), with ``patches`` the mean of the patch tokens after the norm. (The official ``--global_pool`` averages before
    another norm, which is trained with the probe.)
    """

    def __init__(self, config: ModelConfig, *, size: int, channels: int, pool: Literal["class", "patches"]) -> None:
        super().__init__()
        D, p = config.width, config.patch
        self.position = "class token" if pool == "class" else "mean of patch tokens"
        self.pool = pool
        self.patch_embed = PatchEmbedding(channels, D, p)
        self.cls_token = nn.Parameter(torch.empty(1, 1, D))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + (size // p) ** 2, D))
        self.blocks = nn.ModuleList(_Block(D, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(D, eps=LAYER_NORM_EPS)

    def represent(self, x_t: Tensor, t: Tensor, *, block: int | None = None, pool: str | None = None) -> Tensor:
        """The representation of whole images in [-1, 1]; ``t`` is ignored. [B, C, H, W], [B] -> [B, D].

        ``block`` in 1..depth, default the last; the encoder's norm is applied to its output. ``pool`` overrides the model's
        own.
        """
        return self.represent_each(x_t, t, [(block, pool)])[0]

    def represent_each(self, x_t: Tensor, t: Tensor, places: Sequence[tuple[int | None, str | None]]) -> list[Tensor]:
        """:meth:`represent` at several ``places``, each a block and a pool, from one forward pass. Each is [B, D]."""
        tokens = self.patch_embed(x_t) + self.pos_embed[:, 1:]
        first = self.cls_token + self.pos_embed[:, :1]
        x = torch.cat([first.expand(len(tokens), -1, -1), tokens], dim=1)
        depths = [block or len(self.blocks) for block, _ in places]
        found: dict[int, Tensor] = {}
        for depth, block in enumerate(islice(self.blocks, max(depths)), start=1):
            x = block(x)
            here = [i for i, wanted in enumerate(depths) if wanted == depth]
            if here:
                normed = self.norm(x)
                pooled = {i: (places[i][1] or self.pool) for i in here}
                found |= {i: normed[:, 0] if pool == "class" else normed[:, 1:].mean(dim=1) for i, pool in pooled.items()}
        return [found[i] for i in range(len(places))]


class _Block(nn.Module):
    """``x += MHSA(LN(x)); x += MLP(LN(x))`` with the exact GELU. [B, N, D] -> [B, N, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        y: Tensor = x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))
        return y


def read_mae(tensors: Mapping[str, Tensor], *, heads: int | None = None) -> Weights:
    """Convert a pre-trained or full checkpoint to an encoder of images in [-1, 1]; a decoder in the file is left out.

    Raises :class:`UserError` naming the first parameter that is wrong.
    """
    encoder = {name: value for name, value in tensors.items() if not name.startswith("decoder_") and name != "mask_token"}
    notes = []
    if left := len(tensors) - len(encoder):
        notes.append(f"{left} tensors of the decoder are left out: a published decoder is of no use to an evaluation here")
    width, channels, p, _ = shape_of(encoder, "patch_embed.proj.weight", "width channels patch patch", NAME)
    if channels != len(MEAN):
        raise UserError(
            f"parameter 'patch_embed.proj.weight' takes {channels} channels: expected 3 (RGB, normalised as ImageNet is)"
        )
    _, positions, _ = shape_of(encoder, "pos_embed", "1 patches+1 width", NAME)
    n_heads = heads_of(width, HEADS, heads)
    size = p * grid_side(positions - 1, "pos_embed")
    depth = layers(encoder, "blocks.", NAME)
    model = ModelConfig(
        family="mae", patch=p, width=width, depth=depth, decoder_depth=0, heads=n_heads, class_tokens=1, adaln=False
    )
    with torch.device("meta"):
        expected = MaeEncoder(model, size=size, channels=channels, pool="class").state_dict()
    require_shapes(encoder, {name: tuple(value.shape) for name, value in expected.items()}, NAME)
    notes.append("ImageNet's mean and deviation are folded into the patch embedding, which here takes images in [-1, 1]")
    return Weights(model, size, channels, 0, encoder | _unnormalised(encoder), tuple(notes))


def _unnormalised(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A patch embedding of x in [-1, 1] that equals the given one of ``((x + 1)/2 - mean)/std``, since there is no padding."""
    weight = state["patch_embed.proj.weight"].double()
    mean, std = (torch.tensor(values, dtype=torch.float64).view(1, 3, 1, 1) for values in (MEAN, STD))
    bias = state["patch_embed.proj.bias"].double() + (weight * (0.5 - mean) / std).sum((1, 2, 3))
    return {"patch_embed.proj.weight": (weight * 0.5 / std).float(), "patch_embed.proj.bias": bias.float()}
