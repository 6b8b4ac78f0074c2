"""Which stages of a sweep are fused, and why.

Stages of one shape (engine/fusion/shape.py) form a group. A group is divided into units of one size, which the number of
workers decides; the last unit may be smaller. The stages of a unit are trained together. In mode ``auto`` a group is fused only
if a measurement on this machine finds that fused stages train clearly faster than the same stages alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.engine.fusion.shape import shape_key
from umd_bench.orchestration.graph import Node
from umd_bench.store import StageState

MAX_STAGES = 16  # in a unit; larger units brought no further gain when measured


@dataclass(frozen=True)
class FusionGroup:
    """Stages of one shape that have no result yet; a unit would hold at most ``size`` of them."""

    name: str  # data set and kind: "digits pretrain"
    shape: str
    specs: tuple[StageSpec, ...]
    size: int


@dataclass(frozen=True)
class Gain:
    """How many times as fast fused stages train as the same stages alone: the median and the quartiles of several rounds."""

    median: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether fusing was faster in three quarters of the rounds."""
        return self.low > 1

    def __str__(self) -> str:
        return f"{self.median:.2f} times as fast as alone ({self.low:.2f} to {self.high:.2f})"


Measure = Callable[[FusionGroup], Gain | None]
"""The gain of a group; None if it could not be measured in time."""


@dataclass(frozen=True)
class Choice:
    """The largest number of stages in a unit, for each fused shape; and lines that say what is fused, and why."""

    sizes: dict[str, int]
    lines: list[str]


def fusion_groups(nodes: Iterable[Node], workers: int) -> list[FusionGroup]:
    """Groups the stages without a result, one group per shape. Shapes with at most ``workers`` such stages are left out."""
    by_shape: dict[str, list[StageSpec]] = {}
    for node in nodes:
        shape = shape_key(node.spec) if node.state is not StageState.DONE else None
        if shape is not None:
            by_shape.setdefault(shape, []).append(node.spec)
    groups = []
    for shape, specs in by_shape.items():
        size = min(MAX_STAGES, -(-len(specs) // workers))
        if size > 1:
            groups.append(FusionGroup(f"{specs[0].data.name} {specs[0].kind}", shape, tuple(specs), size))
    return groups


def choose_groups(nodes: Iterable[Node], workers: int, mode: str, measure: Measure) -> Choice:
    """All groups if ``mode`` is ``on``; if it is ``auto``, the groups that ``measure`` finds clearly faster."""
    choice = Choice({}, [])
    nodes = list(nodes)
    groups = fusion_groups(nodes, workers)
    for group in groups:
        gain = measure(group) if mode == "auto" else None
        if mode == "on":
            verdict = "fused, since --fuse is on"
        elif gain is None:
            verdict = "not fused, because the measurement failed or took too long"
        elif gain.is_clear:
            verdict = f"{gain}, fused"
        else:
            verdict = f"not clearly faster here: {gain}, not fused"
        if mode == "on" or (gain is not None and gain.is_clear):
            choice.sizes[group.shape] = group.size
        choice.lines.append(f"{len(group.specs)} stages of {group.name}, up to {group.size} in one process: {verdict}")
    if not groups:
        why = f"no shape has more than {workers} unfinished stages, so each can have a worker of its own"
        if any(node.spec.resources.compile for node in nodes):
            why = f"compiled stages (resources.compile) are trained alone, and among the others {why}"
        choice.lines.append(f"no stages are fused: {why}")
    return choice
