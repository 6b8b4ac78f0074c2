"""Which stages of a sweep are trained as one, and why: ``--fuse off|auto|on``.

Stages of one shape are put into units so large that every worker has one, and ``auto`` does so only where that was measured to
be faster on this machine than as many stages side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from umd_bench.config.errors import UserError, one_of
from umd_bench.config.trial.fusion_shape import shape_of
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.orchestration.graph import Node
from umd_bench.store import StageState

MODES = ("off", "auto", "on")
FUSING = ("inline", "ray")  # executors whose stages may be fused
MOST = 16  # stages as one: beyond that nothing was measured to be gained


@dataclass(frozen=True)
class Alike:
    """Stages of one shape that have no result yet; ``size`` of them at most would be trained as one by each worker."""

    name: str  # digits pretrain
    shape: str
    specs: tuple[StageSpec, ...]
    size: int


@dataclass(frozen=True)
class Gain:
    """How many times as fast stages are as one than apart: the median of several rounds and its quartiles."""

    median: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether it is a gain beyond the spread."""
        return self.low > 1

    def __str__(self) -> str:
        return f"{self.median:.2f} times as fast as apart ({self.low:.2f} to {self.high:.2f})"


Measure = Callable[[Alike], Gain | None]
"""None where it could not be told, in the time there is."""


@dataclass(frozen=True)
class Fusion:
    """How many stages are trained as one, by shape, and what to tell about it."""

    sizes: dict[str, int]
    lines: list[str]


def check_fuse(mode: str, on: str, *, searching: bool = False, joined: bool = False) -> None:
    """Raises :class:`UserError` for an unknown mode, and for ``on`` where no stages can be fused."""
    if mode not in MODES:
        raise UserError(f"--fuse {mode!r} is not accepted: {one_of(MODES)}")
    why = why_apart(on, searching=searching, joined=joined)
    if mode == "on" and why is not None:
        raise UserError(f"--fuse on is not accepted: {why}")


def why_apart(on: str, *, searching: bool = False, joined: bool = False, devices: int = 1) -> str | None:
    """Why nothing can be fused there, or None; ``joined`` is a Ray that runs already."""
    if on not in FUSING:
        return f"a job trains one stage: expected --on {' or --on '.join(FUSING)}, found --on {on}"
    if joined:
        return "how many stages a Ray that runs already takes side by side is not known before they are put into units"
    if searching:
        return "a search suggests its trials one after another, and may end each by itself"
    if devices > 1:
        return f"a stage is spread over {devices} devices"
    return None


def alike_stages(nodes: Iterable[Node], workers: int) -> list[Alike]:
    """Stages without a result, by shape; those of which there are not more than ``workers`` side by side are left out."""
    by_shape: dict[str, list[StageSpec]] = {}
    for node in nodes:
        shape = shape_of(node.spec) if node.state is not StageState.DONE else None
        if shape is not None:
            by_shape.setdefault(shape, []).append(node.spec)
    found = []
    for shape, specs in by_shape.items():
        size = min(MOST, -(-len(specs) // workers))
        if size > 1:
            found.append(Alike(f"{specs[0].data.name} {specs[0].kind}", shape, tuple(specs), size))
    return found


def choose(nodes: Iterable[Node], workers: int, mode: str, measure: Measure) -> Fusion:
    """What is trained as one: all that can be where ``mode`` is ``on``, what ``measure`` finds faster where it is ``auto``."""
    fusion = Fusion({}, [])
    nodes = list(nodes)
    groups = alike_stages(nodes, workers)
    for group in groups:
        gain = measure(group) if mode == "auto" else None
        words = f"{len(group.specs)} stages of {group.name}, up to {group.size} as one"
        if mode == "on":
            said = "trained so, as asked"
        elif gain is None:
            said = "not measured (its process failed or was too slow), trained apart"
        elif gain.is_clear:
            said = f"{gain}, trained so"
        else:
            said = f"not faster here for sure: {gain}, trained apart"
        if mode == "on" or (gain is not None and gain.is_clear):
            fusion.sizes[group.shape] = group.size
        fusion.lines.append(f"{words}: {said}")
    if not groups:
        why = f"no two stages of one shape for each of {workers} workers"
        if any(node.spec.resources.compile for node in nodes):
            why = "a compiled stage is trained by itself (resources.compile)"
        fusion.lines.append(f"nothing is trained as one: {why}")
    return fusion
