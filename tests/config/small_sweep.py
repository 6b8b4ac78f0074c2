"""A small sweep file that the tests of this folder change."""

from __future__ import annotations

from pathlib import Path

SWEEP = """\
name: small
tier: digits
trial:
  method: umd
  stages:
    pretrain: {nimg: 1280}
axes:
  stages.pretrain.corruption.mask_ratio: [0.25, 0.5]
  noise.schedule: [linear, cosine]
seeds: [0, 1]
"""

ZIPPED = SWEEP.replace(
    "noise.schedule: [linear, cosine]", '"stages.finetune_probe.snapshot, stages.generate.snapshot": [0.5, 1.0]'
)


def write(folder: Path, text: str, name: str = "sweep.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path
