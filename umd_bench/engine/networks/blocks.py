"""The transformer block: pre-LN attention and MLP, conditioned by adaptive LayerNorm or by one extra token.

Parameter names are timm's if timm has the same part (``norm1``, ``attn.qkv``, ``attn.proj``, ``norm2``, ``mlp.fc1``,
``mlp.fc2``). Shapes: B batch, N tokens, D width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-6


class Attention(nn.Module):
    """Multi-head self-attention with biases, scale 1/sqrt(head_dim). [B, N, D] -> [B, N, D]."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, N, D = x.shape
        q, k, v = self.qkv(x).view(B, N, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        y: Tensor = self.proj(attend(q, k, v).transpose(1, 2).reshape(B, N, D))
        return y


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """``softmax(q k^T / sqrt(d)) v``. q, k and v [B, heads, N, d] -> [B, heads, N, d].

    Uses torch's fused kernel, except on a CPU in bf16: there two batched products and a softmax were measured to be faster,
    forward and backward, from 16 to 257 tokens (docs/performance-notebook.md).
    """
    if q.device.type == "cpu" and q.dtype is torch.bfloat16:
        weights: Tensor = (q * q.shape[-1] ** -0.5 @ k.transpose(2, 3)).softmax(dim=3)
        return weights @ v
    return F.scaled_dot_product_attention(q, k, v)


class Mlp(nn.Module):
    """Dense(4D) -> GELU (tanh approximation) -> Dense(D)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.fc2(F.gelu(self.fc1(x), approximate="tanh"))
        return y


class Block(nn.Module):
    """One block of encoder or decoder. With ``adaln`` the condition modulates it; without, the condition is one more token.

    ``m = Dense(6D)(c)`` split as shift0, scale0, gate0, shift1, scale1, gate1;
    ``x += gate0 * MHSA(LN(x) (1 + scale0) + shift0)``; ``x += gate1 * MLP(LN(x) (1 + scale1) + shift1)``.
    Without adaLN, ``[c, x]`` goes through the plain block and the token of c is dropped.
    """

    def __init__(self, width: int, heads: int, *, adaln: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width)
        self.modulation = nn.Linear(width, 6 * width) if adaln else None

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        """``x`` [B, N, D], ``c`` [B, D] (or [1, D], shared by all rows) -> [B, N, D]."""
        if self.modulation is None:
            x = torch.cat([c.unsqueeze(1).expand(len(x), -1, -1), x], dim=1)
            x = x + self.attn(self.norm1(x))
            x = x + self.mlp(self.norm2(x))
            return x[:, 1:]
        shift0, scale0, gate0, shift1, scale1, gate1 = self.modulation(c).unsqueeze(1).chunk(6, dim=2)
        x = torch.addcmul(x, gate0, self.attn(modulate(self.norm1(x), shift0, scale0)))
        return torch.addcmul(x, gate1, self.mlp(modulate(self.norm2(x), shift1, scale1)))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``x (1 + scale) + shift``. ``x`` [B, N, D]; ``shift`` and ``scale`` [B, 1, D] are shared by the tokens of a row."""
    return torch.addcmul(shift, x, 1 + scale)
