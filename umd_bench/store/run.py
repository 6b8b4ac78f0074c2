"""One run directory, ``results/stages/<key>/``: the truth about one stage.

    config.yaml              the StageSpec, written before the first attempt
    asked/                   one empty file a snapshot that some stage asked for; may grow when the result is there
    attempt-<n>/             everything one process wrote while it owned the stage
        environment.json     versions, device, threads, host
        events.jsonl         append-only, one JSON object a line
        output.log           what its process printed, if it did
        checkpoints/         training state to resume from
        result.json          its result, if it got that far
        failure.json         why it ended, if it failed
        failure-retried.json the same, after a person asked for another try
    snapshots/               weights kept at a stated nimg   \\
    artifacts/               sample grids                     > linked from the attempt that made them, first one wins
    result.json              the accepted result             /
    lease.lock               held by the process that owns the stage now

An attempt writes only into its own folder; what others may read is linked into place without replacing, so that a late
twin (a requeued job whose first life went on) can neither damage nor replace what was accepted.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import filelock

from umd_bench.config.documents.frozen import Frozen
from umd_bench.config.errors import UserError
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.store.files import link_new, read_json, read_yaml, read_yaml_fields, write_json, write_yaml

LOOK_SECONDS = 0.1  # a lease is taken for an instant by whoever asks whether it is: no owner


class StageBusy(Exception):  # noqa: N818 - a state, not a fault
    """Another process owns the stage."""


class Failure(Frozen):
    """Why an attempt ended without a result.

    ``state`` decides whether trying again can help (``nan``, ``error`` and ``user`` are deterministic); ``fingerprint``
    is equal for failures of one cause, so that a sweep can group them.
    """

    state: str
    message: str
    fingerprint: str
    traceback: str = ""

    @property
    def headline(self) -> str:
        """The message's first line."""
        return self.message.partition("\n")[0]


class RunDir:
    """The run directory of ``key`` below the results folder ``root``. Making the object touches no file."""

    def __init__(self, root: Path, key: str) -> None:
        self.root, self.key = root, key
        self.path = root.joinpath("stages", key)

    @property
    def artifacts(self) -> Path:
        """The folder of what a stage leaves for people: grids, samples."""
        return self.path / "artifacts"

    def prepare(self, spec: StageSpec) -> None:
        """Write ``config.yaml`` unless it is there, and note the snapshots and the resources that are asked for this time.

        A stage that nobody owns goes on with the resources it was asked for last: they are not what it is. A note is a file
        of its own, so that two commands that ask at once take nothing from each other.
        """
        for nimg in spec.snapshots:
            note = self.path / "asked" / self.snapshot(nimg).stem
            note.parent.mkdir(parents=True, exist_ok=True)
            note.touch()
        path = self.path / "config.yaml"
        if not path.exists():
            write_yaml(path, spec.model_dump(mode="json"))
            return
        before = StageSpec.model_validate(read_yaml(path))
        if before.resources != spec.resources and not self.is_owned():
            write_yaml(path, before.model_copy(update={"resources": spec.resources}).model_dump(mode="json"))

    def config(self) -> StageSpec:
        """The stage with all snapshots ever asked for. Raises :class:`UserError` where the folder or its config is missing."""
        path = self.path / "config.yaml"
        try:
            spec = StageSpec.model_validate(read_yaml_fields(path))
            return spec.keeping(int(note.name.removeprefix("nimg-")) for note in (self.path / "asked").glob("nimg-*"))
        except FileNotFoundError:
            raise UserError(f"there is no run {self.key!r}: {path} does not exist") from None

    def result(self) -> dict[str, Any] | None:
        """The accepted result, or None."""
        return read_json(self.path / "result.json")

    def snapshot(self, nimg: int) -> Path:
        """Where the weights after ``nimg`` images are kept; the file may not exist."""
        return self.path / "snapshots" / f"nimg-{nimg:012d}.safetensors"

    def lacks(self, snapshots: Iterable[int]) -> list[int]:
        """Which of these are not there yet, in order."""
        return sorted(nimg for nimg in snapshots if not self.snapshot(nimg).exists())

    def attempts(self) -> list[int]:
        """Numbers of the attempts so far, oldest first."""
        try:
            names = os.listdir(self.path)  # noqa: PTH208 - thousands of folders are listed for one status
        except (FileNotFoundError, NotADirectoryError):  # the latter for a results folder that is a file: said when it is made
            return []
        return sorted(int(name.removeprefix("attempt-")) for name in names if name.startswith("attempt-"))

    def attempt_path(self, number: int) -> Path:
        """The folder of one attempt."""
        return self.path / f"attempt-{number}"

    def checkpoint_dirs(self) -> list[Path]:
        """Every attempt's ``checkpoints/``, newest attempt first."""
        return [self.attempt_path(n) / "checkpoints" for n in reversed(self.attempts())]

    def failure(self) -> Failure | None:
        """Why the newest attempt ended, or None if it has not failed."""
        attempts = self.attempts()
        record = read_json(self.attempt_path(attempts[-1]) / "failure.json") if attempts else None
        return None if record is None else Failure.model_validate(record)

    def give_up(self, failure: Failure) -> None:
        """Record for the newest attempt, whose process went away without a word, why the stage is not tried again.

        Nothing is written where there is no attempt, where it said itself why it ended, or where the stage has an owner.
        """
        lock = self._try_lease() if self.attempts() else None
        if lock is None:
            return
        with lock:
            path = self.attempt_path(self.attempts()[-1]) / "failure.json"
            if not path.exists():
                write_json(path, failure.model_dump())

    def retry(self) -> bool:
        """Set a failure aside: the stage can go on from its newest checkpoint. False where it has not failed, or has an owner.

        The failure's record stays, under another name.
        """
        lock = self._try_lease() if self.failure() is not None else None
        if lock is None:
            return False
        with lock:
            if (self.path / "result.json").exists() or self.failure() is None:
                return False
            folder = self.attempt_path(self.attempts()[-1])
            (folder / "failure.json").replace(folder / "failure-retried.json")
            return True

    def was_retried(self) -> bool:
        """Whether the newest attempt's failure was set aside, and none began since."""
        attempts = self.attempts()
        if not attempts or self.failure() is not None:
            return False
        return (self.attempt_path(attempts[-1]) / "failure-retried.json").exists()

    def events(self, attempt: int | None = None) -> Iterator[dict[str, Any]]:
        """Events of one attempt or of all, in order; a torn last line of a killed process is left out."""
        for number in self.attempts() if attempt is None else [attempt]:
            path = self.attempt_path(number) / "events.jsonl"
            if not path.exists():
                continue
            for line in path.read_text().splitlines():
                try:
                    yield {"attempt": number, **json.loads(line)}
                except json.JSONDecodeError:
                    continue

    def lease(self) -> filelock.BaseFileLock:
        """The lock that the owning process holds; it falls with the process."""
        return filelock.FileLock(self.path / "lease.lock", thread_local=False)

    def is_owned(self) -> bool:
        """Whether a living process owns the stage now; asked of thousands of stages, so without a lock object for each."""
        try:
            handle = os.open(self.path / "lease.lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # as the lease itself is taken
        except BlockingIOError:
            return True
        finally:
            os.close(handle)  # which gives it back
        return False

    def _try_lease(self) -> filelock.BaseFileLock | None:
        """The lease, acquired; None while another process has it, longer than one that only looks (:meth:`is_owned`)."""
        lock = self.lease()
        try:
            lock.acquire(timeout=LOOK_SECONDS, poll_interval=LOOK_SECONDS / 10)
        except filelock.Timeout:
            return None
        return lock

    def begin(self) -> Attempt:
        """Own the stage and open a new attempt; raises :class:`StageBusy` while another process owns it."""
        lock = self._try_lease()
        if lock is None:
            raise StageBusy(self.key)
        number = max(self.attempts(), default=0) + 1
        self.attempt_path(number).mkdir()
        return Attempt(self, number, lock)


class Attempt:
    """One process's try at a stage; a context manager that gives the stage back at the end."""

    def __init__(self, run: RunDir, number: int, lock: filelock.BaseFileLock) -> None:
        self.run, self.number, self._lock = run, number, lock
        self.path = run.attempt_path(number)
        self.checkpoints = self.path / "checkpoints"
        self._events: TextIO | None = None

    def __enter__(self) -> Attempt:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._events is not None:
            self._events.close()
        self._lock.release()

    def event(self, event: str, **fields: object) -> None:
        """Append one line to ``events.jsonl``; a number that is not finite raises ``ValueError``."""
        if self._events is None:
            self._events = (self.path / "events.jsonl").open("a", buffering=1)
        self._events.write(json.dumps({"event": event, "time": round(time.time(), 3), **fields}, allow_nan=False) + "\n")

    def publish(self, source: Path, target: Path) -> bool:
        """Link a finished file into the run directory; False when another attempt was first."""
        return link_new(source, target)

    def finish(self, result: dict[str, Any]) -> bool:
        """Record the result and offer it as the stage's; False when another attempt's was accepted before."""
        write_json(self.path / "result.json", result)
        accepted = self.publish(self.path / "result.json", self.run.path / "result.json")
        self.event("state", state="done" if accepted else "superseded")
        return accepted

    def fail(self, failure: Failure) -> None:
        """Record why this attempt ended."""
        write_json(self.path / "failure.json", failure.model_dump())
        self.event("state", state="failed", failure=failure.state, message=failure.message)
