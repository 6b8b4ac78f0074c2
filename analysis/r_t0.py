"""The ablation of r_t0, the share of clean images in a batch (the paper's "no-noise probability"; its choice is 0.5)."""

from __future__ import annotations

from analysis.item import PAPER, Item

ITEM = Item(
    title="Share r_t0 of clean, highly masked images",
    sweep="r_t0",
    x="stages.pretrain.corruption.r_t0",
    source=f"{PAPER}: ablation of the no-noise probability",
)
