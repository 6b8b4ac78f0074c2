"""The noise schedule: the official code takes cosine for pixels and linear for latents."""

from __future__ import annotations

from analysis.item import PAPER, Item

ITEM = Item(
    title="Noise schedule",
    sweep="noise_schedule",
    x="noise.schedule",
    source=f"{PAPER}: choice of schedule; cosine: Nichol and Dhariwal, arXiv 2102.09672",
)
