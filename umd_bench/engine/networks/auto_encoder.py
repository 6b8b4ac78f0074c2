"""The auto-encoder: a ViT encoder over visible patches, a ViT decoder over all of them, two heads (UMD paper, section 3).

Shapes: B batch, L patches, K kept patches, D width, C channels, p patch side. Images are float in [-1, 1]; ``t`` is 0 for a
clean image and in [1, T] for a noised one; in a mask 0 is keep and 1 is remove. The encoder never sees a removed patch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umd_bench.config.errors import FieldError
from umd_bench.config.trial.model import ModelConfig
from umd_bench.engine.networks.blocks import LAYER_NORM_EPS, Block, modulate
from umd_bench.engine.networks.conditioning import LabelEmbedding, TimeEmbedding


class Output(NamedTuple):
    """The result of one forward pass."""

    x_0: Tensor  # [B, C, H, W] float, prediction of the clean image
    target: Tensor  # [B, C, H, W] float, prediction of the noise process's target (eps, x_0 or v)
    mask: Tensor  # [B, L] float, 0 is keep, 1 is remove
    representation: Tensor  # [B, D] mean of the class tokens after the encoder's norm


class PatchEmbedding(nn.Module):
    """A convolution of side p and stride p, computed as one matrix product. [B, C, H, W] -> [B, L, D], patches row by row."""

    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        B, C, H, W = x.shape
        p = self.patch
        patches = x.view(B, C, H // p, p, W // p, p).permute(0, 2, 4, 1, 3, 5).reshape(B, -1, C * p * p)
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class AutoEncoder(nn.Module):
    """The model of every method here; ``classes`` = 0 builds one without a label embedding.

    Raises :class:`FieldError` if the patch does not divide the image side. ``initialise.init_weights`` or a state dict sets all
    parameters. There are no buffers, so the model can be built on the meta device.
    """

    position = "mean of class tokens"  # of the representation, in words

    def __init__(self, config: ModelConfig, *, size: int, channels: int, classes: int = 0) -> None:
        super().__init__()
        if size % config.patch:
            raise FieldError("model.patch", config.patch, f"expected a divisor of the image side {size}")
        D, p = config.width, config.patch
        self.patch, self.channels, self.side = p, channels, size // p
        self.n_patches = self.side**2

        self.patch_embed = PatchEmbedding(channels, D, p)
        self.cls_token = nn.Parameter(torch.empty(1, config.class_tokens, D))
        self.pos_embed = nn.Parameter(torch.empty(1, self.n_patches, D))
        self.time_embed = TimeEmbedding(D)
        self.label_embed = LabelEmbedding(classes, D) if classes else None
        self.blocks = nn.ModuleList(Block(D, config.heads, adaln=config.adaln) for _ in range(config.depth))
        self.norm = nn.LayerNorm(D, eps=LAYER_NORM_EPS)

        self.mask_token = nn.Parameter(torch.empty(1, 1, D))
        self.decoder_pos_embed = nn.Parameter(torch.empty(1, self.n_patches, D))
        self.decoder_blocks = nn.ModuleList(Block(D, config.heads, adaln=config.adaln) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(D, eps=LAYER_NORM_EPS)
        self.final_modulation = nn.Linear(D, 2 * D) if config.adaln else None
        self.head = nn.ConvTranspose2d(D, 2 * channels, p, stride=p)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        *,
        mask_noise: Tensor | None = None,
        mask_ratio: float = 0.0,
        label: Tensor | None = None,
    ) -> Output:
        """Mask, encode, decode.

        ``x_t`` [B, C, H, W]. ``t`` [B], or [1] if all rows share it; each entry is 0 or in [1, T]. ``mask_noise`` [B, L] is
        uniform in [0, 1); the ``int(L (1 - mask_ratio))`` patches with the smallest entries of a row are kept. ``label`` [B]
        int64 is in 0..classes, where ``classes`` is the null label; None stands for the null label in all rows.
        """
        L = self.n_patches
        if mask_noise is None or not mask_ratio:
            keep = restore = None
            mask = x_t.new_zeros(len(x_t), L)
        else:
            n_kept = int(L * (1 - mask_ratio))
            order = mask_noise.argsort(dim=1, stable=True)
            restore = order.argsort(dim=1)
            keep = order[:, :n_kept]
            mask = (restore >= n_kept).to(x_t.dtype)
        c = self.condition(t, label)
        representation, tokens = self.encode(self.embed(x_t, keep), c)
        x_0, target = self.decode(tokens, restore, representation, c)
        return Output(x_0, target, mask, representation)

    def represent(self, x_t: Tensor, t: Tensor, *, block: int | None = None, pool: str | None = None) -> Tensor:
        """The representation of whole images without a label. [B, C, H, W], [B] -> [B, D].

        ``block`` in 1..depth, default the last; the encoder's norm is applied to its output. ``pool`` None or ``class`` is the
        mean of the class tokens, ``first_class`` the first class token, ``patches`` the mean of the patch tokens.
        """
        return self.represent_each(x_t, t, [(block, pool)])[0]

    def represent_each(self, x_t: Tensor, t: Tensor, places: Sequence[tuple[int | None, str | None]]) -> list[Tensor]:
        """:meth:`represent` at several ``places``, each a block and a pool, from one forward pass. Each is [B, D]."""
        x, c = self._all_tokens(self.embed(x_t)), self.condition(t, None)
        depths = [block or len(self.blocks) for block, _ in places]
        found: dict[int, Tensor] = {}
        for depth, block in enumerate(islice(self.blocks, max(depths)), start=1):
            x = block(x, c)
            here = [i for i, wanted in enumerate(depths) if wanted == depth]
            if here:
                normed = self.norm(x)
                found |= {i: self._pooled(normed, places[i][1]) for i in here}
        return [found[i] for i in range(len(places))]

    def _pooled(self, x: Tensor, pool: str | None) -> Tensor:
        """[B, n + L, D] -> [B, D]."""
        n_class = self.cls_token.shape[1]
        if pool == "patches":
            return x[:, n_class:].mean(dim=1)
        return x[:, 0] if pool == "first_class" else x[:, :n_class].mean(dim=1)

    def condition(self, t: Tensor, label: Tensor | None) -> Tensor:
        """``c = time + label``, through SiLU under adaLN. [B] -> [B, D] ([1] -> [1, D])."""
        c: Tensor = self.time_embed(t)
        if self.label_embed is not None:
            c = c + self.label_embed(t.new_full(t.shape, self.label_embed.null, dtype=torch.int64) if label is None else label)
        return c if self.final_modulation is None else F.silu(c)

    def embed(self, x_t: Tensor, keep: Tensor | None = None) -> Tensor:
        """Patch tokens with position embeddings, of the patches ``keep`` [B, K] or of all. [B, C, H, W] -> [B, K, D]."""
        tokens = self.patch_embed(x_t) + self.pos_embed
        return tokens if keep is None else _take(tokens, keep)

    def encode(self, tokens: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The encoder over class tokens and visible patches. [B, K, D] -> representation [B, D], tokens [B, K, D]."""
        n_class = self.cls_token.shape[1]
        x = self._all_tokens(tokens)
        for block in self.blocks:
            x = block(x, c)
        x = self.norm(x)
        return x[:, :n_class].mean(dim=1), x[:, n_class:]

    def _all_tokens(self, tokens: Tensor) -> Tensor:
        """The class tokens before the patches. [B, K, D] -> [B, n + K, D]."""
        return torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1)

    def decode(self, tokens: Tensor, restore: Tensor | None, representation: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The decoder over all patches and the representation as one more token. [B, K, D] -> x_0, target [B, C, H, W].

        ``restore`` [B, L] is the index of each patch in ``[visible patches, mask tokens]``; None if all are visible.
        """
        B, K, D = tokens.shape
        if restore is not None:
            tokens = _take(torch.cat([tokens, self.mask_token.expand(B, self.n_patches - K, D)], dim=1), restore)
        x = torch.cat([representation.unsqueeze(1), tokens + self.decoder_pos_embed], dim=1)
        for block in self.decoder_blocks:
            x = block(x, c)
        x = self.decoder_norm(x[:, 1:])
        if self.final_modulation is not None:
            shift, scale = self.final_modulation(c).unsqueeze(1).chunk(2, dim=2)
            x = modulate(x, shift, scale)
        return self._to_images(x)

    def _to_images(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """The transposed convolution of stride p, as one matrix product. [B, L, D] -> two of [B, C, H, W] float32."""
        B, C, p, side = len(tokens), self.channels, self.patch, self.side
        assert self.head.bias is not None
        patches = (tokens @ self.head.weight.flatten(1)).view(B, side, side, 2 * C, p, p)
        images = patches.permute(0, 3, 1, 4, 2, 5).reshape(B, 2 * C, side * p, side * p).float() + self.head.bias.view(-1, 1, 1)
        x_0, target = images.chunk(2, dim=1)
        return x_0, target


def _take(tokens: Tensor, index: Tensor) -> Tensor:
    """Choose tokens of each row by index: [B, N, D], [B, M] -> [B, M, D]."""
    return tokens.gather(1, index.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
