"""Another try for what has failed, and for nothing else: the failure's record is set aside, and the stage can run again.

A stage goes on from its newest checkpoint. The next command on the sweep runs it; one that is at work takes it up at once.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.orchestration.monitor.stage_status import StatusReader, first_names, stage_keys, wanted_statuses
from umd_bench.store import Failure, RunDir, read_sweep


@dataclass(frozen=True)
class Retried:
    """A stage that can run again, and why it had failed."""

    trial: str
    stage: str
    key: str
    failure: Failure

    def __str__(self) -> str:
        failure = self.failure
        return f"{self.trial} {self.stage} [{self.key}] ({failure.state}, {failure.fingerprint}): {failure.headline}"


def retry(root: Path, sweep: str, *, state: str | None = None, fingerprint: str | None = None) -> list[Retried]:
    """Make the sweep's failed stages runnable again: all, or those of one state (``nan``, ``oom``, ``died``, ...) or cause.

    ``fingerprint`` may be the beginning of one. Raises :class:`UserError` for an unknown sweep, and where stages have failed
    but none so.
    """
    record = read_sweep(root, sweep)
    statuses = wanted_statuses(record, StatusReader(root).read(stage_keys(record)))  # what a search pruned is left as it is
    failed = {key: status.failure for key, status in statuses.items() if status.failure is not None}
    wanted = {
        key: failure
        for key, failure in failed.items()
        if (state is None or failure.state == state) and failure.fingerprint.startswith(fingerprint or "")
    }
    if failed and not wanted:
        asked = " ".join(f"--{name} {value}" for name, value in (("state", state), ("fingerprint", fingerprint)) if value)
        raise UserError(f"{asked}: no stage of {sweep} has failed so; failures there: {_kinds(failed.values())}")
    names = first_names(record)
    return [Retried(*names[key], key, failure) for key, failure in wanted.items() if RunDir(root, key).retry()]


def _kinds(failures: Iterable[Failure]) -> str:
    """``nan (a1b2c3d4e5f6) 3, oom (...) 1``."""
    counts: dict[str, int] = {}
    for failure in failures:
        name = f"{failure.state} ({failure.fingerprint})"
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{name} x {count}" for name, count in sorted(counts.items()))
