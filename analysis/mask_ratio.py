"""The mask-ratio ablation: how much of a noised image is hidden (the paper's choice is 0.375)."""

from __future__ import annotations

from analysis.item import PAPER, Item

ITEM = Item(
    title="Mask ratio of noised images",
    sweep="mask_ratio",
    x="stages.pretrain.corruption.mask_ratio",
    source=f"{PAPER}: mask-ratio ablation",
)
