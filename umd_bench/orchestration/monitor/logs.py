"""What a stage did, in words: its events and what its process wrote, attempt by attempt, oldest first."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from umd_bench.orchestration.executors.jobs.records import Jobs
from umd_bench.orchestration.executors.jobs.slurm_states import waits_because
from umd_bench.orchestration.monitor.lookup import Found
from umd_bench.store import RunDir, StageState, stage_state

# What a worker's process printed, wherever its executor keeps it: files of an attempt, the run directory, or a job's batch.
OUTPUT = ("*.log", "*.out", "*.err")
FOLLOW_SECONDS = 0.5
QUEUE_SECONDS = 5.0  # for Slurm to say why a job waits


class _Tail:
    """The lines that were added to a file since one last looked; a line without its end waits for it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def lines(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._at)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._at += len(whole)
        return whole.decode(errors="replace").splitlines()


class StageLog:
    """The log of one stage, read on from where it was left."""

    def __init__(self, found: Found) -> None:
        self._name, self._run = found.name, found.run
        self._tails: dict[Path, _Tail] = {}
        self._explained: set[int] = set()  # attempts whose failure was told

    def new_lines(self) -> Iterator[str]:
        """What was written since the last call: of each attempt its events, then what its process printed, then its failure."""
        for number in self._run.attempts():
            folder = self._run.attempt_path(number)
            label = f"{self._name} #{number}"
            for line in self._tail(folder / "events.jsonl"):
                told = _event(label, line)
                if told is not None:
                    yield told
            yield from self._output(folder, label)
            for failure in ("failure.json", "failure-retried.json"):
                if number not in self._explained and (folder / failure).exists():
                    self._explained.add(number)
                    yield from _failure(label, folder / failure)
        yield from self._output(self._run.path, self._name)
        yield from self._of_job()

    def _of_job(self) -> Iterator[str]:
        """What the job of its last submission printed, for all of the stages that share the job; where one was submitted."""
        jobs = Jobs(self._run.root)
        claim = jobs.newest(self._run.key)
        ids = jobs.ids(claim.batch) if claim is not None else None
        if claim is not None and ids is not None:
            yield from self._output(jobs.folder(claim.batch), f"{self._name} job", f"{ids[claim.task]}_")

    def _output(self, folder: Path, label: str, begins: str = "") -> Iterator[str]:
        for path in sorted(path for pattern in OUTPUT for path in folder.glob(begins + pattern)):
            for line in self._tail(path):
                yield f"{label} {path.name} | {line}"

    def _tail(self, path: Path) -> list[str]:
        return self._tails.setdefault(path, _Tail(path)).lines()

    @property
    def may_grow(self) -> bool:
        """Whether more can be expected: the stage is not done and has not failed."""
        return stage_state(self._run) not in (StageState.DONE, StageState.FAILED)


def show_logs(
    stages: Sequence[Found],
    write: Callable[[str], None],
    *,
    lines: int,
    follow: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write the last ``lines`` lines of each stage; with ``follow`` go on until each of them is done or one has failed."""
    logs = [StageLog(found) for found in stages]
    for found, log in zip(stages, logs, strict=True):
        shown = deque(log.new_lines(), maxlen=lines)
        for line in shown or [f"{found.name} [{found.run.key}]: {_silence(found.run)}"]:
            write(line)
    while follow:
        growing = all(stage_state(found.run) is not StageState.FAILED for found in stages) and any(log.may_grow for log in logs)
        for log in logs:
            for line in log.new_lines():
                write(line)
        if not growing:
            return
        sleep(FOLLOW_SECONDS)


def _silence(run: RunDir) -> str:
    if stage_state(run) is not StageState.NEW:
        return "has written nothing yet"
    jobs = Jobs(run.root)
    claim = next(jobs.live([run.key]), None)
    if claim is None:
        return "not begun yet"
    ids, batch = jobs.ids(claim.batch), jobs.read(claim.batch)
    if ids is None or batch is None:
        return "not begun yet; its submission is not confirmed"
    job = ids[claim.task]
    why = waits_because(job, QUEUE_SECONDS) if batch.executor == "slurm" else None
    return f"not begun yet; its job {job} {why or 'was submitted, and nobody says how it is now'}"


def _event(label: str, line: str) -> str | None:
    """One event as a line; None for a torn one."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    at = datetime.fromtimestamp(event.pop("time", 0)).strftime("%Y-%m-%d %H:%M:%S")
    return f"{at} {label} {_words(event.pop('event', '?'), event)}"


def _words(kind: str, event: dict[str, Any]) -> str:
    match kind:
        case "state":
            state = event.pop("state")
            if state == "failed":
                return f"failed ({event.get('failure')}): {str(event.get('message')).partition(chr(10))[0]}"
            return " ".join([state, *_pairs(event)])
        case "metrics":
            speed = event.pop("images_per_second", None)
            told = [f"{event.pop('nimg'):,} images", *_pairs(event), *([] if speed is None else [f"{speed:,.0f} images/s"])]
            return ", ".join(told)
        case "progress":
            done, total = event.pop("done"), event.pop("total")
            return " ".join([f"{done:,} of {total:,}", *_pairs(event)])
        case "warning":
            return f"warning: {event.get('message')}"
    return " ".join([kind, *_pairs(event)])


def _pairs(event: dict[str, Any]) -> list[str]:
    return [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in event.items()]


def _failure(label: str, path: Path) -> Iterator[str]:
    """The traceback, or the message where there is none: what the event's one line leaves out."""
    try:
        failure = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    for line in (failure.get("traceback") or failure.get("message", "")).rstrip().splitlines():
        yield f"{label} | {line}"
