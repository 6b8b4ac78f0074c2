"""The auto-encoder as a plain PyTorch module that is easy to read. It is the baseline for the engine's model.

It loads the state dict of ``engine/networks/auto_encoder.py`` but shares no code with that model, and does not change when that
model becomes faster. Shapes: B batch, L patches, D width, C channels, p patch.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from umd_bench.config.trial.model import ModelConfig

_EPS = 1e-6


class PlainModel(nn.Module):
    """ViT encoder over visible patches, ViT decoder over all, two heads (UMD paper, section 3). Weights are not initialised."""

    def __init__(self, config: ModelConfig, *, size: int, channels: int, classes: int) -> None:
        super().__init__()
        D, p = config.width, config.patch
        self.side, self.patch, self.channels, self.classes = size // p, p, channels, classes
        self.patch_embed = _Patches(channels, D, p)
        self.cls_token = nn.Parameter(torch.zeros(1, config.class_tokens, D))
        self.pos_embed = nn.Parameter(torch.zeros(1, self.side**2, D))
        self.time_embed = _Trunk(D)
        self.label_embed = _Labels(classes, D) if classes else None
        self.blocks = nn.ModuleList(_Block(D, config.heads, config.adaln) for _ in range(config.depth))
        self.norm = nn.LayerNorm(D, eps=_EPS)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, D))
        self.decoder_pos_embed = nn.Parameter(torch.zeros(1, self.side**2, D))
        self.decoder_blocks = nn.ModuleList(_Block(D, config.heads, config.adaln) for _ in range(config.decoder_depth))
        self.decoder_norm = nn.LayerNorm(D, eps=_EPS)
        self.final_modulation = nn.Linear(D, 2 * D) if config.adaln else None
        self.head = _Head(D, 2 * channels, p)

    def forward(
        self, x_t: Tensor, t: Tensor, mask_noise: Tensor, mask_ratio: float, label: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``x_t`` [B, C, H, W], ``t`` [B], ``mask_noise`` [B, L] -> x_0 and target [B, C, H, W], mask [B, L] (1: removed)."""
        B, L = mask_noise.shape
        c = self.condition(t, label)
        x = self.patch_embed.proj(x_t).flatten(2).transpose(1, 2) + self.pos_embed
        n_kept = int(L * (1 - mask_ratio))
        order = torch.argsort(mask_noise, dim=1, stable=True)
        rank = torch.argsort(order, dim=1)
        D = x.shape[2]
        x = torch.gather(x, 1, order[:, :n_kept, None].expand(-1, -1, D))
        x = torch.cat([self.cls_token.expand(B, -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x, c)
        x = self.norm(x)
        n_class = self.cls_token.shape[1]
        representation, x = x[:, :n_class].mean(dim=1, keepdim=True), x[:, n_class:]
        x = torch.cat([x, self.mask_token.expand(B, L - n_kept, -1)], dim=1)
        x = torch.gather(x, 1, rank[:, :, None].expand(-1, -1, D))
        x = torch.cat([representation, x + self.decoder_pos_embed], dim=1)
        for block in self.decoder_blocks:
            x = block(x, c)
        x = self.decoder_norm(x[:, 1:])
        if self.final_modulation is not None:
            shift, scale = self.final_modulation(c)[:, None].chunk(2, dim=2)
            x = x * (1 + scale) + shift
        x_0, target = self.head(x, self.side).chunk(2, dim=1)
        return x_0, target, (rank >= n_kept).float()

    def condition(self, t: Tensor, label: Tensor | None) -> Tensor:
        """Time and label [B], [B] -> one vector per image [B, D]; without ``label`` every image has the null label."""
        half = self.cls_token.shape[2] // 2
        frequency = torch.exp(-math.log(10000) / (half - 1) * torch.arange(half, device=t.device, dtype=torch.float32))
        angle = t.float()[:, None] * frequency
        c = cast("Tensor", self.time_embed(torch.cat([torch.sin(angle), torch.cos(angle)], dim=1)))
        if self.label_embed is not None:
            if label is None:
                label = torch.full(t.shape, self.classes, dtype=torch.int64, device=t.device)
            c = c + self.label_embed(label)
        return c if self.final_modulation is None else F.silu(c)


class _Patches(nn.Module):
    def __init__(self, channels: int, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)


class _Head(nn.ConvTranspose2d):
    """A linear layer from each token to its patch; its weights have the layout of a transposed convolution."""

    def __init__(self, width: int, channels: int, patch: int) -> None:
        super().__init__(width, channels, patch, stride=patch)

    def forward(self, x: Tensor, side: int) -> Tensor:  # type: ignore[override]
        """[B, L, D] -> [B, 2C, H, W]."""
        return super().forward(x.transpose(1, 2).reshape(len(x), -1, side, side))


class _Trunk(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.fc2(F.silu(self.fc1(x))))


class _Labels(_Trunk):
    def __init__(self, classes: int, width: int) -> None:
        super().__init__(width)
        self.table = nn.Embedding(classes + 1, width)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.table(x))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        q, k, v = self.qkv(x).reshape(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        x = F.scaled_dot_product_attention(q, k, v)
        return cast("Tensor", self.proj(x.transpose(1, 2).reshape(B, N, D)))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.fc2(F.gelu(self.fc1(x), approximate="tanh")))


class _Block(nn.Module):
    """A pre-LN block, modulated by the condition; without adaLN the condition is an extra token of this block only."""

    def __init__(self, width: int, heads: int, adaln: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_EPS)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_EPS)
        self.mlp = _Mlp(width)
        self.modulation = nn.Linear(width, 6 * width) if adaln else None

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        if self.modulation is None:
            x = torch.cat([c[:, None], x], dim=1)
            x = x + self.attn(self.norm1(x))
            return cast("Tensor", (x + self.mlp(self.norm2(x)))[:, 1:])
        shift0, scale0, gate0, shift1, scale1, gate1 = self.modulation(c)[:, None].chunk(6, dim=2)
        x = x + gate0 * self.attn(self.norm1(x) * (1 + scale0) + shift0)
        return cast("Tensor", x + gate1 * self.mlp(self.norm2(x) * (1 + scale1) + shift1))
