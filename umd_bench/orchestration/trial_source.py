"""Where a sweep's trials come from: a grid or a search.

The trials of a grid are all known at the start. A search adds and drops trials as results arrive.

A source never changes the graph itself. It reads a :class:`SweepProgress` and returns :class:`Changes`; the scheduler alone
applies them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from umd_bench.orchestration.graph import Node
from umd_bench.store import Failure, StageState


@dataclass(frozen=True)
class SweepProgress:
    """The progress of a sweep: a read-only view of the scheduler's state.

    The mappings and sets change with that state; the numbers do not.

    ``nodes`` is the graph by stage key, ``trials`` the stage keys of each trial id, dropped stages included. ``reused`` counts
    the stages that had a result when they were added, ``finished`` the stages that finished since. Stages in ``blocked`` cannot
    run because an ancestor is in ``failures``. ``stopped_because`` is None until the scheduler is stopped.
    """

    nodes: Mapping[str, Node]
    trials: Mapping[str, Sequence[str]] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    blocked: AbstractSet[str] = frozenset()
    reused: int = 0
    finished: int = 0
    stopped_because: str | None = None

    def count(self, state: StageState) -> int:
        """The number of stages in a state."""
        return sum(node.state is state for node in self.nodes.values())

    @property
    def complete(self) -> bool:
        """Whether every stage has its result."""
        return all(node.state is StageState.DONE for node in self.nodes.values())


@dataclass(frozen=True)
class Changes:
    """The changes that a source requests.

    ``added`` is a graph to merge into the sweep's graph. ``dropped`` are the keys of all stages that no trial needs any more.
    The scheduler takes them out of the graph; a stage that runs first saves its state and ends. ``held`` are the keys of all
    stages that the scheduler must not submit for now. ``dropped`` and ``held`` are complete: they replace the sets of the
    previous update.
    """

    added: Mapping[str, Node] = field(default_factory=dict)
    dropped: AbstractSet[str] = frozenset()
    held: AbstractSet[str] = frozenset()


class TrialSource(Protocol):
    """Gives the scheduler its trials."""

    grows: bool
    """Whether an update after the first may add trials."""

    def update(self, progress: SweepProgress) -> Changes:
        """The changes to make now.

        The scheduler calls this before it starts and after every poll. Each time it repeats the call until an update adds
        nothing.
        """


class Grid:
    """Trials that are all known at the start: the first update adds their graph, and nothing changes after that."""

    grows = False

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._changes = Changes(nodes)

    def update(self, progress: SweepProgress) -> Changes:
        """The whole graph at first, then nothing."""
        changes, self._changes = self._changes, Changes()
        return changes
