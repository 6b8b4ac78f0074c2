"""S/4 beside B/4: does the order of the methods hold for both sizes?"""

from __future__ import annotations

from analysis.item import PAPER, Item

ITEM = Item(
    title="Model size",
    sweep="model_size",
    x="model",
    source=f"{PAPER}: S/4 and B/4 at 64 px",
    published=("imagenet64",),
)
