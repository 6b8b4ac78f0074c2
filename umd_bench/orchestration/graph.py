"""A sweep's stages as a graph: one node for each stage key, shared by all trials that need it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from umd_bench.config.gc_pause import gc_paused
from umd_bench.config.sweep.resolve import Sweep, Trial
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.store import RunDir, StageState, SweepRecord, TrialRecord, stage_state


@dataclass
class Node:
    """One stage: ``trials`` are the ids of the trials that share it, ``name`` is its name in the first of them.

    ``needed`` are the snapshots (in images seen) that must exist, with its result, before the stage counts as done. A
    ``rung`` of a search decides whether its parent continues, so it begins as soon as the weights that it reads exist, and
    before other stages.
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


@gc_paused()
def build_graph(root: Path, trials: Iterable[Trial]) -> dict[str, Node]:
    """Nodes by key, parents before children, in the order of the trials; writes nothing.

    A training stage keeps every snapshot that any trial lists or any stage reads. A finished one needs only the snapshots that
    a trial lists or an unfinished stage reads.
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
            node.spec = node.spec.with_snapshots(spec.snapshots)
            listed.setdefault(spec.key, set()).update(spec.snapshots)
            node.trials.append(trial.id)
            if spec.parent_key in nodes and spec.parent_nimg is not None:
                parent = nodes[spec.parent_key]
                parent.spec = parent.spec.with_snapshots([spec.parent_nimg])
    for node in reversed(nodes.values()):
        read = [nodes[key].spec.parent_nimg for key in node.children if nodes[key].state is not StageState.DONE]
        node.needed = tuple(sorted({nimg for nimg in read if nimg in node.spec.snapshots} | listed[node.key]))
        node.state = stage_state(RunDir(root, node.key), node.needed)
    return nodes


def add_nodes(root: Path, nodes: dict[str, Node], added: Mapping[str, Node]) -> None:
    """Merge the graph ``added`` into ``nodes``, in place. A stage that is in both becomes one node, shared by all its trials.

    A finished stage counts as unfinished again if a new trial needs a snapshot that it did not save.
    """
    for key, new in added.items():
        node = nodes.setdefault(key, new)
        if node is new:
            continue
        node.spec = node.spec.with_snapshots(new.spec.snapshots)
        node.trials += [trial for trial in new.trials if trial not in node.trials]
        node.children += [child for child in new.children if child not in node.children]
        node.needed = tuple(sorted({*node.needed, *new.needed}))
        node.rung = node.rung or new.rung
        if node.state is StageState.DONE:
            node.state = stage_state(RunDir(root, key), node.needed)


def sweep_record(sweep: Sweep) -> SweepRecord:
    """The sweep's record, for tables and tracking."""
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
    """The trials' rows of a sweep's record."""
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


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
