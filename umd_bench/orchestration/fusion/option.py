"""The option ``--fuse off|auto|on``: check it, forecast its effect, and wrap an executor accordingly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError, one_of
from umd_bench.engine.fusion.shape import shape_key
from umd_bench.orchestration.executors.contract import Executor
from umd_bench.orchestration.fusion.executor import fusing
from umd_bench.orchestration.fusion.policy import choose_groups, fusion_groups
from umd_bench.orchestration.fusion.units import RUN_UNIT
from umd_bench.orchestration.graph import Node
from umd_bench.orchestration.stage_process.entry_point import RUN_STAGE

MODES = ("off", "auto", "on")
FUSING_EXECUTORS = ("inline", "ray")


@dataclass(frozen=True)
class Fusion:
    """Which stages are fused: at most ``sizes[shape]`` stages of each shape at a time. ``sizes`` is empty if none are fused."""

    sizes: dict[str, int]

    @property
    def entry_point(self) -> str:
        """The entry point to start the executor with, before :meth:`wrap` wraps it."""
        return RUN_UNIT if self.sizes else RUN_STAGE

    def wrap(self, root: Path, executor: Executor) -> Executor:
        """``executor``, or one around it that fuses stages."""
        return fusing(root, executor, self.sizes) if self.sizes else executor


def check_fuse(mode: str, on: str, *, searching: bool = False, joined: bool = False) -> None:
    """Raise :class:`UserError` for an unknown mode, and for mode ``on`` if no stages can be fused.

    ``on`` is the executor's name; ``joined`` says that it uses a Ray that was started before this command.
    """
    if mode not in MODES:
        raise UserError(f"--fuse {mode!r} is not accepted: {one_of(MODES)}")
    obstacle = _obstacle(on, searching=searching, joined=joined)
    if mode == "on" and obstacle is not None:
        raise UserError(f"--fuse on is not accepted: {obstacle}")


def search_lines(mode: str, on: str) -> list[str]:
    """The lines to print about the option before a search, whose trials are never fused."""
    return [] if mode == "off" else [f"no stages are fused: {_obstacle(on, searching=True)}"]


def planned_lines(mode: str, root: Path, nodes: Sequence[Node], workers: int) -> list[str]:
    """The lines that forecast the effect of the option. They name the groups that still have to be measured."""
    from umd_bench.orchestration.fusion.measure import cached_gain

    if mode == "off":
        return []
    groups = fusion_groups(nodes, workers)
    unknown = [group for group in groups if mode == "auto" and cached_gain(root, group, workers) is None]
    lines = [
        f"{len(group.specs)} stages of {group.name}, up to {group.size} in one process: "
        "fused if a measurement finds that faster"
        for group in unknown
    ]
    if len(unknown) == len(groups) > 0:
        return lines
    shapes = {group.shape for group in unknown}
    known = [node for node in nodes if shape_key(node.spec) not in shapes]
    return lines + choose_groups(known, workers, mode, lambda group: cached_gain(root, group, workers)).lines


def choose_fusion(
    mode: str,
    nodes: Sequence[Node],
    root: Path,
    data_root: Path,
    workers: int,
    *,
    on: str,
    joined: bool,
    print_line: Callable[[str], None],
) -> Fusion:
    """Decide which of the stages ``nodes`` are fused when ``workers`` processes train at a time; measures if mode is ``auto``.

    ``print_line`` is called with each line that explains the decision.
    """
    from umd_bench.orchestration.fusion.measure import measured_gain

    if mode == "off":
        return Fusion({})
    obstacle = _obstacle(on, joined=joined, devices=max(node.spec.devices for node in nodes))
    if obstacle is not None:
        print_line(f"no stages are fused: {obstacle}")
        return Fusion({})
    choice = choose_groups(nodes, workers, mode, lambda group: measured_gain(root, group, workers, data_root))
    for line in choice.lines:
        print_line(line)
    return Fusion(choice.sizes)


def _obstacle(on: str, *, searching: bool = False, joined: bool = False, devices: int = 1) -> str | None:
    """Why no stages can be fused, or None."""
    if on not in FUSING_EXECUTORS:
        return f"a job trains one stage: expected --on {' or --on '.join(FUSING_EXECUTORS)}, found --on {on}"
    if joined:
        return "it is unknown how many stages a Ray of another command runs at a time"
    if searching:
        return "a search suggests its trials one after another, and may end each of them early"
    if devices > 1:
        return f"a stage is spread over {devices} devices"
    return None
