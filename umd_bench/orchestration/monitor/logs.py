"""The log of a stage: its events as sentences and the output of its process, attempt by attempt, oldest first."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from umd_bench.orchestration.executors.jobs.queues.slurm_states import describe_state
from umd_bench.orchestration.executors.jobs.records import JobRecords
from umd_bench.orchestration.monitor.lookup import NamedRun
from umd_bench.store import RunDir, StageState, stage_state

# Files that hold a process's output. The executor decides where: in the attempt, the run directory or the job's batch folder.
OUTPUT_PATTERNS = ("*.log", "*.out", "*.err")
FOLLOW_SECONDS = 0.5
QUEUE_SECONDS = 5.0  # timeout for asking Slurm why a job waits


class _Tail:
    """Reads the lines added to a file since the last call; a line is read when its line break has been written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0

    def lines(self) -> list[str]:
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                text = file.read()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind(b"\n") + 1]
        self._offset += len(whole)
        return whole.decode(errors="replace").splitlines()


class StageLog:
    """The log of one stage; every call of :meth:`new_lines` continues where the last one ended."""

    def __init__(self, stage: NamedRun) -> None:
        self._name, self._run = stage.name, stage.run
        self._tails: dict[Path, _Tail] = {}
        self._failures_shown: set[int] = set()  # numbers of attempts

    def new_lines(self) -> Iterator[str]:
        """The lines added since the last call: for each attempt its events, its process's output, then its failure.

        The output in the run directory and the output of the stage's job come last.
        """
        for number in self._run.attempts():
            folder = self._run.attempt_path(number)
            label = f"{self._name} #{number}"
            for line in self._tail(folder / "events.jsonl"):
                text = _event_line(label, line)
                if text is not None:
                    yield text
            yield from self._output(folder, label)
            for failure in ("failure.json", "failure-retried.json"):
                if number not in self._failures_shown and (folder / failure).exists():
                    self._failures_shown.add(number)
                    yield from _failure_lines(label, folder / failure)
        yield from self._output(self._run.path, self._name)
        yield from self._job_output()

    def _job_output(self) -> Iterator[str]:
        """The output of the job that the stage was last submitted in, if any; stages packed into one job share it."""
        jobs = JobRecords(self._run.root)
        claim = jobs.newest_claim(self._run.key)
        ids = jobs.job_ids(claim.batch) if claim is not None else None
        if claim is not None and ids is not None:
            yield from self._output(jobs.folder(claim.batch), f"{self._name} job", f"{ids[claim.task]}_")

    def _output(self, folder: Path, label: str, prefix: str = "") -> Iterator[str]:
        for path in sorted(path for pattern in OUTPUT_PATTERNS for path in folder.glob(prefix + pattern)):
            for line in self._tail(path):
                yield f"{label} {path.name} | {line}"

    def _tail(self, path: Path) -> list[str]:
        return self._tails.setdefault(path, _Tail(path)).lines()

    @property
    def may_grow(self) -> bool:
        """Whether more lines can be expected: the stage is neither done nor failed."""
        return stage_state(self._run) not in (StageState.DONE, StageState.FAILED)


def show_logs(
    stages: Sequence[NamedRun],
    write: Callable[[str], None],
    *,
    lines: int,
    follow: bool,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Write the last ``lines`` lines of each stage. With ``follow``, continue until all are done or one has failed."""
    logs = [StageLog(stage) for stage in stages]
    for stage, log in zip(stages, logs, strict=True):
        last = deque(log.new_lines(), maxlen=lines)
        for line in last or [f"{stage.name} [{stage.run.key}]: {_why_empty(stage.run)}"]:
            write(line)
    while follow:
        growing = all(stage_state(stage.run) is not StageState.FAILED for stage in stages) and any(log.may_grow for log in logs)
        for log in logs:
            for line in log.new_lines():
                write(line)
        if not growing:
            return
        sleep(FOLLOW_SECONDS)


def _why_empty(run: RunDir) -> str:
    """Why a stage has no log: it has just started, was not started, or its job waits."""
    if stage_state(run) is not StageState.NEW:
        return "has written nothing yet"
    jobs = JobRecords(run.root)
    claim = jobs.open_claim(run.key)
    if claim is None:
        return "has not started yet"
    ids, batch = jobs.job_ids(claim.batch), jobs.read_batch(claim.batch)
    if ids is None or batch is None:
        return "has not started yet; the scheduler has not confirmed its job"
    job = ids[claim.task]
    why = describe_state(job, QUEUE_SECONDS) if batch.executor == "slurm" else None
    return f"has not started yet; its job {job} {why or 'was submitted, and its state is unknown'}"


def _event_line(label: str, line: str) -> str | None:
    """An event as a line with its time; None if ``line`` is not complete JSON."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    at = datetime.fromtimestamp(event.pop("time", 0)).strftime("%Y-%m-%d %H:%M:%S")
    return f"{at} {label} {_event_text(event.pop('event', '?'), event)}"


def _event_text(kind: str, event: dict[str, Any]) -> str:
    match kind:
        case "state":
            state = event.pop("state")
            if state == "failed":
                return f"failed ({event.get('failure')}): {str(event.get('message')).partition(chr(10))[0]}"
            return " ".join([state, *_pairs(event)])
        case "metrics":
            speed = event.pop("images_per_second", None)
            parts = [f"{event.pop('nimg'):,} images", *_pairs(event), *([] if speed is None else [f"{speed:,.0f} images/s"])]
            return ", ".join(parts)
        case "progress":
            done, total = event.pop("done"), event.pop("total")
            return " ".join([f"{done:,} of {total:,}", *_pairs(event)])
        case "warning":
            return f"warning: {event.get('message')}"
    return " ".join([kind, *_pairs(event)])


def _pairs(event: dict[str, Any]) -> list[str]:
    return [f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in event.items()]


def _failure_lines(label: str, path: Path) -> Iterator[str]:
    """The traceback, or the whole message if there is none; the event shows only the message's first line."""
    try:
        failure = json.loads(path.read_text())
    except (OSError, ValueError):
        return
    for line in (failure.get("traceback") or failure.get("message", "")).rstrip().splitlines():
        yield f"{label} | {line}"
