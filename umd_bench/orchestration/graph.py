"""A sweep's stages as a graph: each key once, however many trials share it, and what is known about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


def _distinct(values: Iterable[Any]) -> list[Any]:
    return list(dict.fromkeys(values))
