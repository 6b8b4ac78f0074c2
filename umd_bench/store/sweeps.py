"""A sweep's record, ``results/sweeps/<name>/sweep.yaml``: which trials it stands for and which stages they use.

Tables, tracking and status read it beside the run directories; it is written when a sweep starts and can be written
again from the sweep's YAML at any time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from umd_bench.config.documents.fields import Name
from umd_bench.config.documents.frozen import Frozen
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.search import SearchConfig
from umd_bench.config.sweep.sweep import ReportConfig
from umd_bench.store.files import read_yaml, write_atomic


class TrialRecord(Frozen):
    """One arm with one seed: ``stages`` maps the stage's name in the trial to its key."""

    id: str
    method: str
    axes: dict[str, Any]
    seed: int
    stages: dict[str, str]


class SuggestionRecord(Frozen):
    """One suggestion of a search: ``trials`` are the ids of its trials, one a seed, none where no trial accepts its values.

    ``scores`` are the objectives' means over the seeds, of a ``done`` one; ``repeats`` is the number of an earlier suggestion
    with the same values; ``why`` says why it failed. ``rungs`` maps the shares of its training at which it was compared with
    others to what the pruner's metric was there; a ``pruned`` one ended at the last of them, ``pruned_at``.
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
        """The share of its training at which it was pruned."""
        return max(self.rungs) if self.state == "pruned" and self.rungs else None


class SearchRecord(Frozen):
    """What is searched, and what was suggested so far; numbers count within an arm."""

    config: SearchConfig
    arms: int
    suggestions: list[SuggestionRecord]

    @property
    def complete(self) -> bool:
        """Whether all suggestions were made and settled."""
        settled = sum(suggestion.state != "open" for suggestion in self.suggestions)
        return settled >= self.config.trials * self.arms


class SweepRecord(Frozen):
    """The resolved sweep; of a search the trials so far, each once."""

    name: Name
    question: str
    tier: str
    axes: dict[str, list[Any]]
    seeds: list[int]
    report: ReportConfig
    trials: list[TrialRecord] = Field(min_length=1)
    search: SearchRecord | None = None

    def pruned(self) -> dict[str, float]:
        """Ids of the trials that a search pruned -> the share of their training at which it did."""
        suggestions = self.search.suggestions if self.search is not None else []
        gone = {name: s.pruned_at for s in suggestions if s.pruned_at is not None for name in s.trials}
        kept = {name for s in suggestions if s.pruned_at is None for name in s.trials}
        return {name: share for name, share in gone.items() if name not in kept}

    def given_up(self) -> set[str]:
        """Keys of stages that only pruned trials have: what of them has no result gets none."""
        pruned = self.pruned()
        keys = {trial.id in pruned: set[str]() for trial in self.trials}
        for trial in self.trials:
            keys[trial.id in pruned] |= set(trial.stages.values())
        return keys.get(True, set()) - keys.get(False, set())


def sweep_dir(root: Path, name: str) -> Path:
    """The folder of a sweep's record, tables and figures."""
    return root / "sweeps" / name


def cancel_request(root: Path, name: str) -> Path:
    """The file that asks commands at work on the sweep to stop; they look whether it is there."""
    return sweep_dir(root, name) / "cancel"


def write_sweep(root: Path, record: SweepRecord) -> None:
    """Write the record in place of an older one."""
    text = yaml.safe_dump(record.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_atomic(sweep_dir(root, record.name) / "sweep.yaml", text.encode())


def list_sweeps(root: Path) -> list[str]:
    """Names of the sweeps recorded below ``root``."""
    return sorted(path.parent.name for path in (root / "sweeps").glob("*/sweep.yaml"))


def read_sweep(root: Path, name: str) -> SweepRecord:
    """The record of one sweep; an unknown name raises :class:`UserError` listing those there are."""
    path = sweep_dir(root, name) / "sweep.yaml"
    if not path.is_file():
        known = ", ".join(list_sweeps(root)) or "none yet; `umd-bench sweep FILE` makes one"
        raise UserError(f"there is no sweep {name!r} in {root}; sweeps there: {known}")
    try:
        return SweepRecord.model_validate(read_yaml(path))
    except (yaml.YAMLError, ValidationError) as error:
        raise UserError(f"{path} cannot be read ({error.__class__.__name__}); run the sweep again to write it anew") from None
