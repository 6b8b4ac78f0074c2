"""What an item of the paper is: the sweep that answers it, the axis and the metrics it is shown in, and where it is from."""

from __future__ import annotations

from dataclasses import dataclass

PAPER = "Hansen-Estruch, Vishwanath, Zhang, Tomar, Unified Auto-Encoding with Masked Diffusion, arXiv 2406.17688"
STANDARD_METRICS = (
    "*probe.acc_*",
    "*generate*.fid",
    "*generate*.fd_*",
    "*generate*.is",
    "*generate*.is_*",
    "*generate*.accuracy_*",
)


@dataclass(frozen=True)
class Item:
    """A table with its figure. ``x`` is an axis's path, and so is ``map_y``, where a heat map over both is drawn too;
    ``published`` names files of ``paper/`` to show beside."""

    title: str
    sweep: str
    x: str
    source: str
    metrics: tuple[str, ...] = STANDARD_METRICS
    published: tuple[str, ...] = ()
    map_y: str | None = None

    @property
    def command(self) -> str:
        """What makes the results."""
        return f"umd-bench sweep {self.sweep}"
