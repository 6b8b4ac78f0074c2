"""A sweep's record, ``results/sweeps/<name>/sweep.yaml``: its trials and the keys of their stages.

Tables, tracking and status read it together with the run directories. It is written when a sweep starts. If it is lost, a
run of the sweep's YAML file writes it again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from umd_bench.config.documents.fields import Frozen, Name
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.search import SearchConfig
from umd_bench.config.sweep.sweep import ReportConfig
from umd_bench.store.files import read_yaml, write_atomic


class TrialRecord(Frozen):
    """One arm with one seed; ``stages`` maps a stage's name in the trial to its key."""

    id: str
    method: str
    axes: dict[str, Any]
    seed: int
    stages: dict[str, str]


class SuggestionRecord(Frozen):
    """One suggestion of a search.

    ``trials`` are the ids of its trials, one per seed; empty if its values make no valid trial. ``scores`` are the objectives,
    averaged over the seeds, if it is ``done``. ``repeats`` is the number of an earlier suggestion with the same values, ``why``
    the reason of a failure. ``rungs`` has the pruner's metric at each share of the training at which the suggestion was
    compared with others; a ``pruned`` suggestion ended at the last of these shares, ``pruned_at``.
    """

    number: int
    arm: dict[str, Any]
    values: dict[str, Any]
    trials: tuple[str, ...]
    state: Literal["open", "done", "failed", "pruned"]
    scores: dict[str, float] = Field(default_factory=dict)
    repeats: int | None = None
    why: str = ""
    rungs: dict[float, float] = Field(default_factory=dict)

    @property
    def pruned_at(self) -> float | None:
        """The share of its training at which it was pruned; None if it was not."""
        return max(self.rungs) if self.state == "pruned" and self.rungs else None


class SearchRecord(Frozen):
    """The configuration of a search and its suggestions so far, which are numbered within each arm."""

    config: SearchConfig
    arms: int
    suggestions: list[SuggestionRecord]

    @property
    def complete(self) -> bool:
        """Whether all suggestions were made and are done, failed or pruned."""
        settled = sum(suggestion.state != "open" for suggestion in self.suggestions)
        return settled >= self.config.trials * self.arms


class SweepRecord(Frozen):
    """The resolved sweep; in a search, ``trials`` has the trials suggested so far, each once."""

    name: Name
    question: str
    tier: str
    axes: dict[str, list[Any]]
    seeds: list[int]
    report: ReportConfig
    trials: list[TrialRecord] = Field(min_length=1)
    search: SearchRecord | None = None

    def pruned(self) -> dict[str, float]:
        """Ids of the pruned trials -> the share of their training at which they were pruned."""
        suggestions = self.search.suggestions if self.search is not None else []
        pruned = {name: s.pruned_at for s in suggestions if s.pruned_at is not None for name in s.trials}
        others = {name for s in suggestions if s.pruned_at is None for name in s.trials}
        return {name: share for name, share in pruned.items() if name not in others}

    def abandoned_keys(self) -> set[str]:
        """Keys of stages that only pruned trials have. Such a stage will not get a result if it has none yet."""
        pruned = self.pruned()
        keys = {trial.id in pruned: set[str]() for trial in self.trials}
        for trial in self.trials:
            keys[trial.id in pruned] |= set(trial.stages.values())
        return keys.get(True, set()) - keys.get(False, set())


def sweep_dir(root: Path, name: str) -> Path:
    """The folder of a sweep's record, tables and figures."""
    return root / "sweeps" / name


def cancel_file(root: Path, name: str) -> Path:
    """The file whose existence makes all commands that run the sweep stop."""
    return sweep_dir(root, name) / "cancel"


def write_sweep(root: Path, record: SweepRecord) -> None:
    """Write the record, replacing an older one."""
    text = yaml.safe_dump(record.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomic(sweep_dir(root, record.name) / "sweep.yaml", text.encode())


def list_sweeps(root: Path) -> list[str]:
    """Names of the sweeps recorded below ``root``."""
    return sorted(path.parent.name for path in (root / "sweeps").glob("*/sweep.yaml"))


def read_sweep(root: Path, name: str) -> SweepRecord:
    """The record of one sweep. Raises :class:`UserError`, listing the known names, for an unknown one."""
    path = sweep_dir(root, name) / "sweep.yaml"
    if not path.is_file():
        known = ", ".join(list_sweeps(root)) or "none yet; `umd-bench sweep FILE` makes one"
        raise UserError(f"there is no sweep {name!r} in {root}; sweeps there: {known}")
    try:
        return SweepRecord.model_validate(read_yaml(path))
    except (yaml.YAMLError, ValidationError) as error:
        raise UserError(f"{path} cannot be read ({error.__class__.__name__}); run the sweep again to write a new one") from None
