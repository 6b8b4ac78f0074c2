"""The plan of a sweep: which stages are reused, resumed, running now or new, and why; as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.orchestration.graph import Node
from umd_bench.store import RunDir, StageState


@dataclass(frozen=True)
class PlannedStage:
    """The plan for one stage: ``what`` is ``reused``, ``resumed``, ``running now`` or ``new``.

    ``why`` says why the stage is not reused.
    """

    node: Node
    what: str
    why: str


def planned_stages(root: Path, nodes: dict[str, Node]) -> list[PlannedStage]:
    """One entry per stage, in the graph's order.

    The entry of a stage that is not reused says why. If the stage has a result, the entry names the snapshots that are missing;
    if it failed, the entry says by what; otherwise it names the parent if that is not reused either, or else the fields that
    differ from the most similar finished stage.
    """
    outcomes = {
        StageState.DONE: "reused",
        StageState.INTERRUPTED: "resumed",
        StageState.FAILED: "resumed",
        StageState.RUNNING: "running now",
    }
    finished = _finished(root) if any(node.state is not StageState.DONE for node in nodes.values()) else []
    planned = []
    for node in nodes.values():
        parent = nodes.get(node.spec.parent_key or "")
        failure = RunDir(root, node.key).failure() if node.state is StageState.FAILED else None
        if node.state is StageState.DONE:
            why = ""
        elif failure is not None:
            why = f"it failed: {failure.headline}"
        elif RunDir(root, node.key).result() is not None:
            missing = ", ".join(f"{nimg:,}" for nimg in RunDir(root, node.key).missing_snapshots(node.needed))
            why = f"it has a result, but no snapshot at nimg = {missing}"
        elif parent is not None and parent.state is not StageState.DONE:
            why = f"its {parent.name} is {outcomes.get(parent.state, 'new')}"
        else:
            why = _difference(node.spec, finished)
        planned.append(PlannedStage(node, outcomes.get(node.state, "new"), why))
    return planned


def plan_table(planned: Sequence[PlannedStage]) -> Table:
    """One row per stage."""
    table = Table("stage", "key", box=None, pad_edge=False)
    table.add_column("trials", overflow="fold")
    table.add_column("what", no_wrap=True)
    table.add_column("why", overflow="fold")
    for stage in planned:
        trials = stage.node.trials
        first = trials[0] + (f" and {len(trials) - 1} more" if len(trials) > 1 else "")
        table.add_row(stage.node.name, stage.node.key, first, stage.what, stage.why)
    return table


def plan_counts(planned: Sequence[PlannedStage]) -> str:
    """``30 stages: 10 new, 20 reused``."""
    counts = Counter(stage.what for stage in planned)
    return f"{len(planned)} stages: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def plan_json(planned: Sequence[PlannedStage]) -> list[dict[str, Any]]:
    """One object per stage: key, name, kind, the parent's key or null, the trials that share it, what and why."""
    return [
        {
            "key": stage.node.key,
            "name": stage.node.name,
            "kind": stage.node.spec.kind,
            "parent": stage.node.spec.parent_key,
            "trials": stage.node.trials,
            "what": stage.what,
            "why": stage.why,
        }
        for stage in planned
    ]


def _finished(root: Path) -> list[StageSpec]:
    """The specs of all stages that have a result, whichever sweep they belong to."""
    return [RunDir(root, path.parent.name).config() for path in sorted((root / "stages").glob("*/result.json"))]


def _difference(spec: StageSpec, finished: list[StageSpec]) -> str:
    """How ``spec`` differs from the most similar finished stage of its kind: ``corruption.mask_ratio 0.375 -> 0.5``."""
    ours = _flat(spec.identity())
    fewest: list[str] | None = None
    for other in finished:
        if other.kind != spec.kind:
            continue
        theirs = _flat(other.identity())
        names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        differences = [
            f"{name.removeprefix('stage.')} {theirs.get(name, '-')} -> {ours.get(name, '-')}"
            for name in names
            if name != "parent"
        ]
        if fewest is None or len(differences) < len(fewest):
            fewest = differences
    if fewest is None:
        return f"no {spec.kind} stage has finished"
    if not fewest:
        return "another parent"
    return "; ".join(fewest[:3]) + (f"; {len(fewest) - 3} more" if len(fewest) > 3 else "")


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: ``{"a": {"b": 1}}`` becomes ``{"a.b": 1}``."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for name, child in value.items() for k, v in _flat(child, f"{prefix}.{name}" if prefix else name).items()}
