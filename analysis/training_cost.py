"""What pre-training costs: operations, images a second and device-hours of each method stand in cost.md."""

from __future__ import annotations

from analysis.item import PAPER, Item

ITEM = Item(
    title="Cost of pre-training",
    sweep="training_cost",
    x="method",
    source=f"{PAPER}: training time",
    metrics=("pretrain.loss_final",),
)
