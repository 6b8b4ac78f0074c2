"""The smallest sweep that really runs every kind of stage but an import, in a few seconds on one core."""

from __future__ import annotations

from pathlib import Path

SMALL = """\
name: small
question: Does everything run?
tier: digits
trial:
  method: umd
  model: {width: 16, depth: 1, decoder_depth: 1, heads: 2}
  stages:
    pretrain: {nimg: 640, batch: 64, checkpoint_every_nimg: 64}
    probe: {shots: [5], draws: 2}
    best_probe: null
    finetune: {nimg: 320, batch: 64}
    finetune_probe: {shots: [5], draws: 2}
    generate: {n: 20, steps: 3}
axes:
  stages.pretrain.corruption.mask_ratio: [0.25, 0.5]
seeds: [0, 1]
"""


def write_small(folder: Path, text: str = SMALL) -> Path:
    """Write the sweep's file into ``folder``; returns its path."""
    path = folder / "small.yaml"
    path.write_text(text)
    return path
