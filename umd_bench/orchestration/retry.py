"""Retry failed stages, and no others: set the record of a failure aside, so that the stage can run again.

A stage continues from its newest checkpoint. If a command is running the sweep, it notices the retry at once; otherwise the
next command on the sweep runs the stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from umd_bench.config.errors import UserError
from umd_bench.orchestration.monitor.stage_status import StatusReader, first_names, stage_keys, wanted_statuses
from umd_bench.store import Failure, RunDir, read_sweep


@dataclass(frozen=True)
class Retried:
    """A stage that can run again, and its failure."""

    trial: str
    stage: str
    key: str
    failure: Failure

    def __str__(self) -> str:
        failure = self.failure
        return f"{self.trial} {self.stage} [{self.key}] ({failure.state}, {failure.fingerprint}): {failure.headline}"


def retry(root: Path, sweep: str, *, state: str | None = None, fingerprint: str | None = None) -> list[Retried]:
    """Make failed stages of a sweep runnable again: all, or only the ones with the given ``state`` and ``fingerprint``.

    A state is ``nan``, ``oom``, ``died``, ...; a fingerprint names a cause, and its first characters are enough. Raises
    :class:`UserError` for an unknown sweep, or if stages have failed but none of them matches.
    """
    record = read_sweep(root, sweep)
    statuses = wanted_statuses(record, StatusReader(root).read(stage_keys(record)))  # pruned stages stay as they are
    failed = {key: status.failure for key, status in statuses.items() if status.failure is not None}
    chosen = {
        key: failure
        for key, failure in failed.items()
        if (state is None or failure.state == state) and failure.fingerprint.startswith(fingerprint or "")
    }
    if failed and not chosen:
        options = " ".join(f"--{name} {value}" for name, value in (("state", state), ("fingerprint", fingerprint)) if value)
        raise UserError(f"{options}: no stage of {sweep} failed like this; its failures: {_kinds(failed.values())}")
    names = first_names(record)
    return [Retried(*names[key], key, failure) for key, failure in chosen.items() if RunDir(root, key).retry()]


def _kinds(failures: Iterable[Failure]) -> str:
    """``nan (a1b2c3d4e5f6) x 3, oom (oom) x 1``."""
    counts = Counter(f"{failure.state} ({failure.fingerprint})" for failure in failures)
    return ", ".join(f"{name} x {count}" for name, count in sorted(counts.items()))
