"""DiT as its authors published it (facebookresearch/DiT, ``models.py``; Peebles and Xie, arXiv 2212.09748).

DiT's integer time is the schedule index, t - 1, so it has no input for a clean image. Its noise schedule is the linear one with
1000 steps. Half of its output is the variance of the reverse process, which no sampler here uses. Its released sampler guides
only the first three of four latent channels (DiT issue 41); the samplers here guide all of them. Shapes: B batch, L patches, D
width, C channels, p patch side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umd_bench.config.errors import UserError
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.networks.auto_encoder import Output, PatchEmbedding
from umd_bench.engine.networks.blocks import LAYER_NORM_EPS, Block, modulate
from umd_bench.engine.published.shapes import Weights, grid_side, heads_of, layers, require_shapes, shape_of

NAME = "dit"
HEADS = {384: 6, 768: 12, 1024: 16, 1152: 16}  # S, B, L, XL
NOISE = NoiseConfig(schedule="linear", timesteps=1000)
_FREQUENCIES = 256
# Prefixes of parameter names: ours -> the official one, if they differ.
_OFFICIAL = {
    "patch_embed.": "x_embedder.",
    "time_embed.fc1.": "t_embedder.mlp.0.",
    "time_embed.fc2.": "t_embedder.mlp.2.",
    "label_embed.table.": "y_embedder.embedding_table.",
    "final_modulation.": "final_layer.adaLN_modulation.1.",
    "head.": "final_layer.linear.",
}


class LabelTable(nn.Module):
    """One vector per class, and a last one for the null label. [B] int64 in 0..classes -> [B, D]."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.null = classes
        self.table = nn.Embedding(classes + 1, width)

    def forward(self, label: Tensor) -> Tensor:
        c: Tensor = self.table(label)
        return c


class FrequencyEmbedding(nn.Module):
    """``[cos(i f), sin(i f)]``, ``f_k = exp(-k ln(10000) / 128)``, then Dense -> SiLU -> Dense. [B] int64 -> [B, D]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(_FREQUENCIES, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, index: Tensor) -> Tensor:
        half = _FREQUENCIES // 2
        frequency = torch.exp(torch.arange(half, dtype=torch.float32, device=index.device) * (-math.log(10000) / half))
        angle = index.float().unsqueeze(1) * frequency
        c: Tensor = self.fc2(F.silu(self.fc1(torch.cat([angle.cos(), angle.sin()], dim=1))))
        return c


class DiT(nn.Module):
    """The published diffusion transformer, with the interface that evaluation uses: :meth:`represent` and a forward pass.

    The representation is the mean of the patch tokens after the last block, before the final layer. This is a choice, since DiT
    has no class tokens and its authors name no representation. The blocks are ours (adaLN in the same order) with norms that
    have no weights.
    """

    position = "mean of patch tokens after the last block"

    def __init__(self, config: ModelConfig, *, size: int, channels: int, classes: int) -> None:
        super().__init__()
        D, p = config.width, config.patch
        self.patch, self.channels, self.side = p, channels, size // p
        self.patch_embed = PatchEmbedding(channels, D, p)
        self.pos_embed = nn.Parameter(torch.empty(1, self.side**2, D))
        self.time_embed = FrequencyEmbedding(D)
        self.label_embed = LabelTable(classes, D)
        self.blocks = nn.ModuleList(Block(D, config.heads, adaln=True) for _ in range(config.depth))
        for block in self.blocks:
            block.norm1, block.norm2 = _plain_norm(D), _plain_norm(D)
        self.norm = _plain_norm(D)
        self.final_modulation = nn.Linear(D, 2 * D)
        self.head = nn.Linear(D, p * p * 2 * channels)

    def represent(self, x_t: Tensor, t: Tensor, *, block: int | None = None, pool: str | None = None) -> Tensor:
        """The representation of whole noised images without a label. [B, C, H, W], [B] -> [B, D].

        ``t`` in 1..1000. ``block`` in 1..depth, default the last; no norm is applied to its output. Raises :class:`UserError`
        for t = 0, and for a ``pool`` of class tokens.
        """
        return self.represent_each(x_t, t, [(block, pool)])[0]

    def represent_each(self, x_t: Tensor, t: Tensor, places: Sequence[tuple[int | None, str | None]]) -> list[Tensor]:
        """:meth:`represent` at several ``places``, each a block and a pool, from one forward pass. Each is [B, D]."""
        for _, pool in places:
            if pool not in (None, "patches"):
                raise UserError(f"a DiT has no class tokens: its pool is patches, not {pool}")
        if not t.all():
            raise UserError("a DiT has no input for clean images: expected a probe with t in 1..1000")
        blocks = [block or len(self.blocks) for block, _ in places]
        x, c = self._embedded(x_t, t, None)
        means: dict[int, Tensor] = {}
        for depth, layer in enumerate(islice(self.blocks, max(blocks)), start=1):
            x = layer(x, c)
            if depth in blocks:
                means[depth] = x.mean(dim=1)
        return [means[block] for block in blocks]

    def forward(self, x_t: Tensor, t: Tensor, *, label: Tensor | None = None) -> Output:
        """Predict eps, and x_0 from it by DiT's own noise schedule.

        ``x_t`` [B, C, H, W]; ``t`` [B] in 1..1000, or [1] if all rows share it; ``label`` [B] int64 in 0..classes, where
        ``classes`` is the null label. None stands for the null label in all rows.
        """
        tokens, c = self._embedded(x_t, t, label)
        for block in self.blocks:
            tokens = block(tokens, c)
        shift, scale = self.final_modulation(c).unsqueeze(1).chunk(2, dim=2)
        B, C, p, side = len(x_t), self.channels, self.patch, self.side
        patches = self.head(modulate(self.norm(tokens), shift, scale)).view(B, side, side, p, p, 2 * C)
        eps = patches[..., :C].permute(0, 5, 1, 3, 2, 4).reshape(B, C, side * p, side * p).float()
        alpha, sigma = (value.float().view(-1, 1, 1, 1) for value in NoiseProcess(NOISE, x_t.device).path(t))
        x_0 = (x_t - sigma * eps) / alpha
        return Output(x_0, eps, x_t.new_zeros(B, side**2), tokens.mean(dim=1))

    def _embedded(self, x_t: Tensor, t: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor]:
        """Tokens [B, L, D] before the first block, and the condition after SiLU [B, D] or [1, D]."""
        label = t.new_full(t.shape, self.label_embed.null, dtype=torch.int64) if label is None else label
        c = F.silu(self.time_embed(t - 1) + self.label_embed(label))
        return self.patch_embed(x_t) + self.pos_embed, c


def read_dit(tensors: Mapping[str, Tensor], *, heads: int | None = None) -> Weights:
    """Convert a released checkpoint. Raises :class:`UserError` naming the first parameter that is wrong."""
    width, channels, p, _ = shape_of(tensors, "x_embedder.proj.weight", "width channels patch patch", NAME)
    _, positions, _ = shape_of(tensors, "pos_embed", "1 patches width", NAME)
    classes = shape_of(tensors, "y_embedder.embedding_table.weight", "classes+1 width", NAME)[0] - 1
    n_heads = heads_of(width, HEADS, heads)
    size = p * grid_side(positions, "pos_embed")
    depth = layers(tensors, "blocks.", NAME)
    model = ModelConfig(
        family="dit", patch=p, width=width, depth=depth, decoder_depth=0, heads=n_heads, class_tokens=0, adaln=True
    )
    with torch.device("meta"):
        empty = DiT(model, size=size, channels=channels, classes=classes).state_dict()
    names = {name: _official(name) for name in empty}
    require_shapes(tensors, {names[name]: tuple(value.shape) for name, value in empty.items()}, NAME)
    notes = ("the half of the output that is the variance of the reverse process is not used by the samplers here",)
    return Weights(model, size, channels, classes, {name: tensors[names[name]] for name in names}, notes)


def _plain_norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=LAYER_NORM_EPS, elementwise_affine=False)


def _official(name: str) -> str:
    """The official name of our parameter ``name``."""
    for ours, official in _OFFICIAL.items():
        if name.startswith(ours):
            return official + name.removeprefix(ours)
    return name.replace(".modulation.", ".adaLN_modulation.1.")
