"""Embeddings of the time and the label, each followed by a two-layer MLP."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def timestep_embedding(t: Tensor, width: int) -> Tensor:
    """``[sin(t f), cos(t f)]``, ``f_k = exp(-k ln(10000) / (h - 1))``, k in 0..h-1, ``h = width / 2``. [B] -> [B, width]."""
    half = width // 2
    frequency = torch.exp(torch.arange(half, dtype=torch.float32, device=t.device) * -(math.log(10000) / (half - 1)))
    angle = t.float().unsqueeze(1) * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


class TimeEmbedding(nn.Module):
    """Sinusoids -> Dense(2w) -> SiLU -> Dense(w). [B] -> [B, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, t: Tensor) -> Tensor:
        c: Tensor = self.fc2(F.silu(self.fc1(timestep_embedding(t, self.width))))
        return c


class LabelEmbedding(nn.Module):
    """Table of ``classes`` and the null label -> Dense(2w) -> SiLU -> Dense(w). [B] int64 in 0..classes -> [B, width]."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.null = classes
        self.table = nn.Embedding(classes + 1, width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, label: Tensor) -> Tensor:
        c: Tensor = self.fc2(F.silu(self.fc1(self.table(label))))
        return c
