"""The records of submitted jobs, from which a later command finds and follows them.

    results/jobs/<batch>/          one submission: a single job or an array of jobs
        batch.json                 written before the submission: the stages of each task, and the code and data they use
        submitted.json             the scheduler's job ids, written after sbatch answered, by the command or by the first task
        stop/<key>, stop/all       a request that this stage, or every stage, ends and is not requeued
        ended/<key>.json           the job's work on this stage is over, and why if something ended it; never replaced
        lives/<task>.jsonl         a line when a run of the task's job begins, and a line if a signal ended the run
        ranks/<job>-<restart>.json the address of rank 0, for a stage on several devices
        *.out, *.err               the output of its jobs
    results/stages/<key>/jobs/<n>.json    a claim: the n-th submission of this stage belongs to that batch

A claim is a batch's right to run a stage; the newest claim wins. It is made by a hard link that fails if the file exists, so of
two commands that submit the same stage at once only one succeeds. A job works only on stages whose newest claim is its own: if
the stage was submitted again, the older job leaves it alone.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field

from umd_bench.config.documents.fields import Frozen
from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.store.files import link_new, read_json, write_json


class Batch(Frozen):
    """One submission. ``name`` is the job's name in the scheduler; ``tasks`` lists the keys of each job of the array.

    A job on several ``devices`` runs one stage, in one process per device. A job on one device runs its stages one after
    another, or ``side_by_side`` of them at a time. ``minutes`` is the time limit, ``after`` the id of a job that must succeed
    first.
    """

    model_config = ConfigDict(populate_by_name=True)

    name: str
    executor: str
    host: str
    created: float
    tasks: tuple[tuple[str, ...], ...]
    root: str
    data_root: str
    entry_point: str = Field(validation_alias="stage", serialization_alias="stage")
    code: str
    minutes: int
    signal_seconds: int
    threads: int
    devices: int = 1
    side_by_side: int = 1
    after: str | None = None


@dataclass(frozen=True)
class Claim:
    """The ``number``-th submission of the stage ``key``: task ``task`` of the batch named ``batch``."""

    key: str
    number: int
    batch: str
    task: int


def new_name() -> str:
    """A unique name for a batch; names sort by time."""
    return f"umd-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


class JobRecords:
    """The records in the results folder ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "jobs"

    def folder(self, batch: str) -> Path:
        """The folder of one submission."""
        return self.path / batch

    # ---- batches and claims

    def write_batch(self, batch: Batch) -> None:
        """Record a batch, before it is submitted."""
        write_json(self.folder(batch.name) / "batch.json", batch.model_dump(mode="json", by_alias=True))

    def read_batch(self, name: str) -> Batch | None:
        """The batch, or None if its record is gone."""
        record = read_json(self.folder(name) / "batch.json")
        return None if record is None else Batch.model_validate(record)

    def confirm(self, name: str, ids: list[str]) -> None:
        """Record the scheduler's job id of each task, unless they are recorded."""
        _write_new(self.folder(name) / "submitted.json", {"ids": ids})

    def job_ids(self, name: str) -> list[str] | None:
        """The scheduler's job id of each task, or None while the submission is not confirmed."""
        record = read_json(self.folder(name) / "submitted.json")
        return None if record is None else list(record["ids"])

    def job_id(self, claim: Claim) -> str | None:
        """The scheduler's id of the job that a claim belongs to, or None while its submission is not confirmed."""
        ids = self.job_ids(claim.batch)
        return None if ids is None else ids[claim.task]

    def newest_claim(self, key: str) -> Claim | None:
        """The last submission of a stage."""
        folder = self._claims(key)
        numbers = sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit())
        if not numbers:
            return None
        record = read_json(folder / f"{numbers[-1]}.json")
        return None if record is None else Claim(key, numbers[-1], record["batch"], record["task"])

    def open_claim(self, key: str) -> Claim | None:
        """The last submission of a stage, unless its job's work on the stage is recorded as over."""
        claim = self.newest_claim(key)
        return claim if claim is not None and self.end_of(claim.batch, key) is None else None

    def open_claims(self, keys: Iterable[str]) -> Iterator[Claim]:
        """:meth:`open_claim` of each stage that has one."""
        return (claim for key in keys if (claim := self.open_claim(key)) is not None)

    def claim(self, claim: Claim) -> bool:
        """Make a claim; False if another command has made it first."""
        return _write_new(self._claims(claim.key) / f"{claim.number}.json", {"batch": claim.batch, "task": claim.task})

    def _claims(self, key: str) -> Path:
        return self.root / "stages" / key / "jobs"

    # ---- how jobs end

    def record_end(self, batch: str, key: str, reason: EndReason | None, message: str = "") -> None:
        """Record that the batch's work on a stage is over, unless that is recorded. ``reason`` is None if nothing ended it."""
        _write_new(self.folder(batch) / "ended" / f"{key}.json", {"kind": reason, "message": message})

    def end_of(self, batch: str, key: str) -> tuple[EndReason | None, str] | None:
        """The reason and message of :meth:`record_end`; None if the batch's work on the stage is not recorded as over."""
        record = read_json(self.folder(batch) / "ended" / f"{key}.json")
        return None if record is None else (EndReason(record["kind"]) if record["kind"] else None, record["message"])

    def ended_keys(self, batch: str) -> set[str]:
        """The stages of a batch for which :meth:`record_end` was called."""
        try:
            return {path.stem for path in (self.folder(batch) / "ended").iterdir() if not path.name.startswith(".")}
        except FileNotFoundError:
            return set()

    def request_stop(self, batch: str, key: str = "all") -> None:
        """Request that one stage of the batch, or all, saves its state, ends and is not requeued."""
        folder = self.folder(batch) / "stop"
        folder.mkdir(exist_ok=True)
        (folder / key).touch()

    def stop_requested(self, batch: str, key: str) -> bool:
        """Whether :meth:`request_stop` was called for this stage or for all."""
        folder = self.folder(batch) / "stop"
        return (folder / "all").exists() or (folder / key).exists()

    # ---- records that a job writes about itself

    def job_runs(self, batch: str, task: int) -> list[dict[str, Any]]:
        """The records of one task's job: a line with ``begun`` for each run (a requeued job runs again).

        A second line with ``end`` (an :class:`EndReason`, or None if unknown) follows if a signal ended the run and the run had
        the time to write it.
        """
        try:
            lines = (self.folder(batch) / "lives" / f"{task}.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def note_job_run(self, batch: str, task: int, **facts: object) -> None:
        """Append one line about a run of a task's job."""
        path = self.folder(batch) / "lives" / f"{task}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **facts}) + "\n")

    def announce_rank_0(self, batch: str, run: str, address: str) -> None:
        """Record where rank 0 listens in this run of the job, unless that is recorded.

        An empty address tells the other ranks that they are not needed.
        """
        _write_new(self.folder(batch) / "ranks" / f"{run}.json", {"address": address})

    def rank_0_address(self, batch: str, run: str) -> str | None:
        """The address that rank 0 has announced, or None before it does."""
        record = read_json(self.folder(batch) / "ranks" / f"{run}.json")
        return None if record is None else str(record["address"])


def _write_new(path: Path, value: Any) -> bool:
    """Write a whole file unless it exists; True if this call wrote it."""
    if path.exists():
        return False
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_json(draft, value)
    try:
        return link_new(draft, path)
    finally:
        draft.unlink()
