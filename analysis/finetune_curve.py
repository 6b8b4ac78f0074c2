"""Probe and samples over fine-tuning (Figure 4): does UMD keep its representation while it learns to draw classes?"""

from __future__ import annotations

from analysis.item import PAPER, Item

ITEM = Item(
    title="Over fine-tuning",
    sweep="finetune_curve",
    x="stages.finetune_probe.snapshot, stages.generate.snapshot",
    source=f"{PAPER}: Figure 4",
)
