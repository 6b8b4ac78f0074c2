"""What becomes of each stage of a sweep, and why: reused, resumed, running now or new."""

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
class Planned:
    """What becomes of a stage, ``reused``, ``resumed``, ``running now`` or ``new``, and why it is not reused."""

    node: Node
    what: str
    why: str


def planned_stages(root: Path, nodes: dict[str, Node]) -> list[Planned]:
    """Each stage in the graph's order; for what is not reused the field in which the nearest result differs.

    A stage below a new one is new by descent, and says so instead of repeating the parent's difference.
    """
    words = {StageState.DONE: "reused", StageState.INTERRUPTED: "resumed", StageState.RUNNING: "running now"}
    finished = _finished(root) if any(node.state is not StageState.DONE for node in nodes.values()) else []
    planned = []
    for node in nodes.values():
        parent = nodes.get(node.spec.parent_key or "")
        if node.state is StageState.DONE:
            why = ""
        elif RunDir(root, node.key).result() is not None:
            lacking = ", ".join(f"{nimg:,}" for nimg in RunDir(root, node.key).missing_snapshots(node.needed))
            why = f"its result stays; no weights were kept at nimg = {lacking}"
        elif parent is not None and parent.state is not StageState.DONE:
            why = f"its {parent.name} is {words.get(parent.state, 'new')}"
        else:
            why = _difference(node.spec, finished)
        planned.append(Planned(node, words.get(node.state, "new"), why))
    return planned


def plan_table(planned: Sequence[Planned]) -> Table:
    """One row a stage."""
    table = Table("stage", "key", box=None, pad_edge=False)
    table.add_column("trials", overflow="fold")
    table.add_column("what", no_wrap=True)
    table.add_column("why", overflow="fold")
    for one in planned:
        trials = one.node.trials
        first = trials[0] + (f" and {len(trials) - 1} more" if len(trials) > 1 else "")
        table.add_row(one.node.name, one.node.key, first, one.what, one.why)
    return table


def plan_counts(planned: Sequence[Planned]) -> str:
    """``30 stages: 10 new, 20 reused``."""
    counts = Counter(one.what for one in planned)
    return f"{len(planned)} stages: " + ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))


def plan_json(planned: Sequence[Planned]) -> list[dict[str, Any]]:
    """For programs, one object a stage: key, name, kind, the parent's key or null, the trials that share it, what and why."""
    return [
        {
            "key": one.node.key,
            "name": one.node.name,
            "kind": one.node.spec.kind,
            "parent": one.node.spec.parent_key,
            "trials": one.node.trials,
            "what": one.what,
            "why": one.why,
        }
        for one in planned
    ]


def _finished(root: Path) -> list[StageSpec]:
    return [RunDir(root, path.parent.name).config() for path in sorted((root / "stages").glob("*/result.json"))]


def _difference(spec: StageSpec, finished: list[StageSpec]) -> str:
    """How ``spec`` differs from the most similar finished stage of its kind: ``corruption.mask_ratio 0.375 -> 0.5``."""
    wanted = _flat(spec.identity())
    best: list[str] | None = None
    for other in finished:
        if other.kind != spec.kind:
            continue
        found = _flat(other.identity())
        names = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        differing = [
            f"{name.removeprefix('stage.')} {found.get(name, '-')} -> {wanted.get(name, '-')}"
            for name in names
            if name != "parent"
        ]
        if best is None or len(differing) < len(best):
            best = differing
    if best is None:
        return f"no {spec.kind} stage has finished"
    return "; ".join(best[:3]) + (f"; {len(best) - 3} more" if len(best) > 3 else "") if best else "another parent"


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for name, child in value.items() for k, v in _flat(child, f"{prefix}.{name}" if prefix else name).items()}
