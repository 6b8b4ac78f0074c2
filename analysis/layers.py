"""Where the representation lies: few-shot accuracy after every encoder block and at several noise levels."""

from __future__ import annotations

from analysis.item import Item

ITEM = Item(
    title="Block and noise level of the probe",
    sweep="layers",
    x="stages.probe.t",
    source="Xiang et al., arXiv 2303.09769, and Chen et al., arXiv 2401.14404, for diffusion models; not an item of the paper",
    metrics=("probe.acc_*",),
    map_y="stages.probe.block",
)
