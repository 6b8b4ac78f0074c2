"""Ten-shot probes on other data sets (Figure 2): does UMD transfer like MAE?"""

from __future__ import annotations

from analysis.item import PAPER, Item

ITEM = Item(
    title="Transfer to other data sets",
    sweep="transfer",
    x="method",
    source=f"{PAPER}: Figure 2",
    metrics=("probe.acc_*", "transfer_*.acc_*"),
)
