"""What is written down about submitted jobs, so that whoever comes next finds them.

    results/jobs/<batch>/          one submission: a single job or an array of them
        batch.json                 written before it: which stages in which task, what they run, with what code and data
        submitted.json             written after it, by the submitting side or by the first of its tasks: the scheduler's ids
        stop/<key>, stop/all       asks that stage, or all of them, to end and not to be requeued
        ended/<key>.json           the stage's job is over: how, as far as is known; the first word stays
        lives/<task>.jsonl         one line when a life of the task begins and one when it ends
        ranks/<job>-<life>.json    where rank 0 of a stage on several devices is to be found
        *.out, *.err               what its jobs printed
    results/stages/<key>/jobs/<n>.json    a claim: the n-th submission of this stage is that batch's

A claim is made by linking without replacing, so of two commands that would submit one stage at once one is refused. A job works
only on stages whose newest claim is its own: one that comes too late, or was thought lost, goes away without touching anything.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from umd_bench.config.documents.frozen import Frozen
from umd_bench.orchestration.executors.contract import EndReason
from umd_bench.store.files import link_new, read_json, write_json


class Batch(Frozen):
    """One submission. ``tasks`` are the keys of each job of the array; ``name`` is the job's name in the scheduler.

    A job of several ``devices`` has as many processes, one a device, and a single stage. Otherwise ``side_by_side`` of its
    stages run at a time.
    """

    name: str
    executor: str
    host: str
    created: float
    tasks: tuple[tuple[str, ...], ...]
    root: str
    data_root: str
    stage: str
    code: str
    minutes: int
    signal_seconds: int
    threads: int
    devices: int = 1
    side_by_side: int = 1
    after: str | None = None


@dataclass(frozen=True)
class Claim:
    """A stage's submission: the ``number``-th of its stage, task ``task`` of a batch."""

    key: str
    number: int
    batch: str
    task: int


def new_name() -> str:
    """A name for a batch, in the order of time and like no other."""
    return f"umd-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(4)}"


class JobRecords:
    """The records below the results folder ``root``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.path = root / "jobs"

    def folder(self, batch: str) -> Path:
        """Everything about one submission."""
        return self.path / batch

    def write_batch(self, batch: Batch) -> None:
        """Write a batch down before it is submitted."""
        write_json(self.folder(batch.name) / "batch.json", batch.model_dump(mode="json"))

    def read_batch(self, name: str) -> Batch | None:
        """The batch, or None where its record is gone."""
        record = read_json(self.folder(name) / "batch.json")
        return None if record is None else Batch.model_validate(record)

    def confirm(self, name: str, ids: list[str]) -> None:
        """Write down what the scheduler called it; the first word stays."""
        _write_new(self.folder(name) / "submitted.json", {"ids": ids})

    def job_ids(self, name: str) -> list[str] | None:
        """The scheduler's id of each task, or None while it is not known to be submitted."""
        record = read_json(self.folder(name) / "submitted.json")
        return None if record is None else list(record["ids"])

    def newest_claim(self, key: str) -> Claim | None:
        """The last submission of a stage."""
        folder = self.root / "stages" / key / "jobs"
        numbers = sorted(int(path.stem) for path in folder.glob("*.json") if path.stem.isdigit())
        if not numbers:
            return None
        record = read_json(folder / f"{numbers[-1]}.json")
        return None if record is None else Claim(key, numbers[-1], record["batch"], record["task"])

    def claim(self, claim: Claim) -> bool:
        """Make a claim; False when another command made that one first."""
        path = self.root / "stages" / claim.key / "jobs" / f"{claim.number}.json"
        return _write_new(path, {"batch": claim.batch, "task": claim.task})

    def record_end(self, batch: str, key: str, kind: EndReason | None, message: str = "") -> None:
        """Write down that a stage's job is over; the first word stays."""
        _write_new(self.folder(batch) / "ended" / f"{key}.json", {"kind": kind, "message": message})

    def end_of(self, batch: str, key: str) -> tuple[EndReason | None, str] | None:
        """How a stage's job ended, or None while it has not."""
        record = read_json(self.folder(batch) / "ended" / f"{key}.json")
        return None if record is None else (EndReason(record["kind"]) if record["kind"] else None, record["message"])

    def ended_keys(self, batch: str) -> set[str]:
        """The stages of a batch whose job is over."""
        try:
            return {path.stem for path in (self.folder(batch) / "ended").iterdir() if not path.name.startswith(".")}
        except FileNotFoundError:
            return set()

    def open_claims(self, keys: Iterable[str]) -> Iterator[Claim]:
        """The newest claims that nothing is known to have ended."""
        for key in keys:
            claim = self.newest_claim(key)
            if claim is not None and self.end_of(claim.batch, key) is None:
                yield claim

    def request_stop(self, batch: str, key: str = "all") -> None:
        """One stage of the batch, or all, ends at its next safe point and is not requeued."""
        folder = self.folder(batch) / "stop"
        folder.mkdir(exist_ok=True)
        (folder / key).touch()

    def stop_requested(self, batch: str, key: str) -> bool:
        """Whether somebody asked."""
        folder = self.folder(batch) / "stop"
        return (folder / "all").exists() or (folder / key).exists()

    def job_runs(self, batch: str, task: int) -> list[dict[str, Any]]:
        """The lives of one task so far: a line with ``begun``, and one with ``end`` (a kind) where it had the time to say."""
        try:
            lines = (self.folder(batch) / "lives" / f"{task}.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def note_job_run(self, batch: str, task: int, **facts: object) -> None:
        """Append one line about a life of a task."""
        path = self.folder(batch) / "lives" / f"{task}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **facts}) + "\n")

    def announce_rank_0(self, batch: str, life: str, address: str) -> None:
        """Write down where rank 0 of one life of a job is; empty when it has nothing for the others. The first word stays."""
        _write_new(self.folder(batch) / "ranks" / f"{life}.json", {"address": address})

    def rank_0_address(self, batch: str, life: str) -> str | None:
        """What was announced, or None while nothing was."""
        record = read_json(self.folder(batch) / "ranks" / f"{life}.json")
        return None if record is None else str(record["address"])


def _write_new(path: Path, value: Any) -> bool:
    """Write a file whole unless its name is taken; True when this one took it."""
    if path.exists():
        return False
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    write_json(beside, value)
    try:
        return link_new(beside, path)
    finally:
        beside.unlink()
