"""UMD beside MAE, DiT and MaskDiT: is it close to MAE in probing and close to DiT in class-conditional generation?"""

from __future__ import annotations

from analysis.item import PAPER, Item

ITEM = Item(
    title="UMD, MAE, DiT and MaskDiT",
    sweep="methods",
    x="method",
    source=f"{PAPER}: comparison of methods",
    published=("imagenet64", "imagenet256"),
)
