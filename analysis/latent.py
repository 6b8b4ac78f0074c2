"""Latents of 256 px images: UMD-L/2 under three guidances (Figure 5) beside DiT-L/2 from scratch."""

from __future__ import annotations

from analysis.item import PAPER, Item

ITEM = Item(
    title="Latent UMD and DiT from scratch",
    sweep="latent",
    x="stages.generate.cfg_scale",
    source=f"{PAPER}: latent table and Figure 5",
    published=("imagenet256",),
)
