"""A sweep's stages as a graph: each key once, however many trials share it, and what is known about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.table import Table

from umd_bench.config.gc_pause import uncollected
from umd_bench.config.sweep.resolve import Sweep, Trial
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.store import RunDir, StageState, SweepRecord, TrialRecord, stage_state


@dataclass
class Node:
    """One stage to be done; ``trials`` are the ids of those that share it, ``name`` its name in the first of them.

    ``needed`` are the snapshots before its end without which it is not done, whether or not it has a result. ``rung``: what it
    says decides whether its parent goes on, so it begins as soon as its weights are there, and before other stages.
    """

    spec: StageSpec
    name: str
    state: StageState
    trials: list[str] = field(default_factory=list)
    children: list[str] = field(default_factory=list)
    needed: tuple[int, ...] = ()
    rung: bool = False

    @property
    def key(self) -> str:
        """The stage's key."""
        return self.spec.key


@uncollected()
def build_graph(root: Path, trials: Iterable[Trial]) -> dict[str, Node]:
    """Nodes by key, parents before children, in the order of the trials; nothing is written.

    A training stage keeps every snapshot that any stage of any trial asks of it. Of a finished one only those are needed that a
    trial lists or an unfinished stage reads.
    """
    nodes: dict[str, Node] = {}
    listed: dict[str, set[int]] = {}
    for trial in trials:
        for name, spec in trial.specs.items():
            node = nodes.get(spec.key)
            if node is None:
                node = nodes[spec.key] = Node(spec, name, StageState.NEW)
                if spec.parent_key in nodes:
                    nodes[spec.parent_key].children.append(spec.key)
            node.spec = node.spec.keeping(spec.snapshots)
            listed.setdefault(spec.key, set()).update(spec.snapshots)
            node.trials.append(trial.id)
            if spec.parent_key in nodes and spec.parent_nimg is not None:
                parent = nodes[spec.parent_key]
                parent.spec = parent.spec.keeping([spec.parent_nimg])
    for node in reversed(nodes.values()):
        asked = [nodes[key].spec.parent_nimg for key in node.children if nodes[key].state is not StageState.DONE]
        node.needed = tuple(sorted({nimg for nimg in asked if nimg in node.spec.snapshots} | listed[node.key]))
        node.state = stage_state(RunDir(root, node.key), node.needed)
    return nodes


def add_nodes(root: Path, nodes: dict[str, Node], more: dict[str, Node]) -> None:
    """Put another graph into ``nodes``, at work or not; a stage that is there already serves the new trials too.

    One that is done already is not any more where a new trial needs a snapshot that it has not kept.
    """
    for key, new in more.items():
        node = nodes.setdefault(key, new)
        if node is new:
            continue
        node.spec = node.spec.keeping(new.spec.snapshots)
        node.trials += [trial for trial in new.trials if trial not in node.trials]
        node.children += [child for child in new.children if child not in node.children]
        node.needed = tuple(sorted({*node.needed, *new.needed}))
        node.rung = node.rung or new.rung
        if node.state is StageState.DONE:
            node.state = stage_state(RunDir(root, key), node.needed)


def sweep_record(sweep: Sweep) -> SweepRecord:
    """The record that tables and tracking read."""
    return SweepRecord(
        name=sweep.config.name,
        question=sweep.config.question,
        tier=sweep.config.tier,
        axes={path: _distinct(trial.axes[path] for trial in sweep.trials) for path in sweep.config.axes},
        seeds=sweep.config.seeds,
        report=sweep.config.report.model_copy(update={"baseline": sweep.baseline}),
        trials=trial_records(sweep.trials),
    )


def trial_records(trials: Iterable[Trial]) -> list[TrialRecord]:
    """Trials as a sweep's record lists them."""
    return [
        TrialRecord(
            id=trial.id,
            method=trial.config.method,
            axes=trial.axes,
            seed=trial.config.seed,
            stages={name: spec.key for name, spec in trial.specs.items()},
        )
        for trial in trials
    ]


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
            lacking = ", ".join(f"{nimg:,}" for nimg in RunDir(root, node.key).lacks(node.needed))
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


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    return {k: v for name, child in value.items() for k, v in _flat(child, f"{prefix}.{name}" if prefix else name).items()}
