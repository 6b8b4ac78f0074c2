"""One run directory, ``results/stages/<key>/``, which holds all that is known of one stage.

    config.yaml              the StageSpec, written before the first attempt
    asked/                   one empty file per snapshot that another stage needs; may grow after the result exists
    attempt-<n>/             everything that one process wrote while it owned the stage
        environment.json     versions, device, threads, host
        events.jsonl         append-only, one JSON object per line
        output.log           the output of its process, if there was any
        checkpoints/         training state to resume from
        result.json          its result, if it finished
        failure.json         why it ended, if it failed
        failure-retried.json the same, after the user has requested another attempt
    snapshots/               weights after a number of images \\
    artifacts/               sample grids                      > linked from the attempt that made them; the first one wins
    result.json              the accepted result              /
    lease.lock               locked by the process that owns the stage now

An attempt writes only into its own folder. Files for others are linked into place and never replace existing ones, so a second
process on the same stage (a requeued job whose first process still runs) can neither damage nor replace an accepted result.
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

from umd_bench.config.documents.fields import Frozen
from umd_bench.config.errors import UserError
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.store.files import link_new, read_json, read_yaml, read_yaml_fields, write_json, write_yaml

LEASE_WAIT_SECONDS = 0.1  # is_owned() of another process holds the lease for an instant, which does not make it the owner


class StageBusy(Exception):  # noqa: N818 - a state, not an error
    """Another process owns the stage."""


class Failure(Frozen):
    """Why an attempt ended without a result.

    ``state`` says whether another attempt can help. After ``nan``, ``error`` or ``user`` it cannot, because it would end in the
    same way. ``fingerprint`` is equal for failures with the same cause, so that a sweep can group them.
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
    """The run directory of ``key`` below the results folder ``root``. Creating the object touches no file."""

    def __init__(self, root: Path, key: str) -> None:
        self.root, self.key = root, key
        self.path = root.joinpath("stages", key)

    @property
    def artifacts(self) -> Path:
        """The folder of files for people to look at: grids, samples."""
        return self.path / "artifacts"

    def prepare(self, spec: StageSpec) -> None:
        """Write ``config.yaml`` unless it exists, and record the requested snapshots and resources.

        If no process owns the stage, the most recently requested resources apply, since resources are not part of the key. Each
        requested snapshot is a file of its own, so that two commands at the same time do not overwrite each other's requests.
        """
        for nimg in spec.snapshots:
            request = self.path / "asked" / self.snapshot(nimg).stem
            request.parent.mkdir(parents=True, exist_ok=True)
            request.touch()
        path = self.path / "config.yaml"
        if not path.exists():
            write_yaml(path, spec.model_dump(mode="json"))
            return
        before = StageSpec.model_validate(read_yaml(path))
        if before.resources != spec.resources and not self.is_owned():
            write_yaml(path, before.model_copy(update={"resources": spec.resources}).model_dump(mode="json"))

    def config(self) -> StageSpec:
        """The stage with all snapshots that were ever requested. Raises :class:`UserError` if there is no ``config.yaml``."""
        path = self.path / "config.yaml"
        try:
            spec = StageSpec.model_validate(read_yaml_fields(path))
            requests = (self.path / "asked").glob("nimg-*")
            return spec.with_snapshots(int(request.name.removeprefix("nimg-")) for request in requests)
        except FileNotFoundError:
            raise UserError(f"there is no run {self.key!r}: {path} does not exist") from None

    def result(self) -> dict[str, Any] | None:
        """The accepted result, or None if there is none yet."""
        return read_json(self.path / "result.json")

    def snapshot(self, nimg: int) -> Path:
        """The path of the weights after ``nimg`` images; the file may not exist."""
        return self.path / "snapshots" / f"nimg-{nimg:012d}.safetensors"

    def missing_snapshots(self, snapshots: Iterable[int]) -> list[int]:
        """Those of ``snapshots`` (images seen) that do not exist yet, sorted."""
        return sorted(nimg for nimg in snapshots if not self.snapshot(nimg).exists())

    def attempts(self) -> list[int]:
        """Numbers of all attempts, oldest first."""
        try:
            names = os.listdir(self.path)  # noqa: PTH208 - faster; one status lists thousands of folders
        except (FileNotFoundError, NotADirectoryError):  # the latter if the results folder is a file; its creation reports that
            return []
        return sorted(int(name.removeprefix("attempt-")) for name in names if name.startswith("attempt-"))

    def attempt_path(self, number: int) -> Path:
        """The folder of one attempt."""
        return self.path / f"attempt-{number}"

    def checkpoint_dirs(self) -> list[Path]:
        """The ``checkpoints/`` of every attempt, newest attempt first."""
        return [self.attempt_path(n) / "checkpoints" for n in reversed(self.attempts())]

    def failure(self) -> Failure | None:
        """Why the newest attempt ended, or None if it has not failed."""
        attempts = self.attempts()
        record = read_json(self.attempt_path(attempts[-1]) / "failure.json") if attempts else None
        return None if record is None else Failure.model_validate(record)

    def record_lost_failure(self, failure: Failure) -> None:
        """Record a failure for the newest attempt, whose process ended without recording one.

        Nothing is written if there is no attempt, if it has recorded a failure itself, or if the stage has an owner.
        """
        lock = self._try_lease() if self.attempts() else None
        if lock is None:
            return
        with lock:
            path = self.attempt_path(self.attempts()[-1]) / "failure.json"
            if not path.exists():
                write_json(path, failure.model_dump())

    def retry(self) -> bool:
        """Set the failure aside, so that the stage can continue from its newest checkpoint: rename ``failure.json``.

        Returns False, and does nothing, if the stage has not failed, has a result, or has an owner.
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
        """Whether the failure of the newest attempt was set aside, and no attempt has begun since."""
        attempts = self.attempts()
        if not attempts or self.failure() is not None:
            return False
        return (self.attempt_path(attempts[-1]) / "failure-retried.json").exists()

    def events(self, attempt: int | None = None) -> Iterator[dict[str, Any]]:
        """Events of one attempt or of all, in order; the incomplete last line of a killed process is left out."""
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
        """The lock that the owning process holds; the system releases it when the process ends."""
        return filelock.FileLock(self.path / "lease.lock", thread_local=False)

    def is_owned(self) -> bool:
        """Whether a running process owns the stage. It makes no lock object, since it is called for thousands of stages."""
        try:
            handle = os.open(self.path / "lease.lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the same lock as lease()
        except BlockingIOError:
            return True
        finally:
            os.close(handle)  # releases the lock
        return False

    def _try_lease(self) -> filelock.BaseFileLock | None:
        """The acquired lease, or None if another process holds it for longer than :meth:`is_owned` does."""
        lock = self.lease()
        try:
            lock.acquire(timeout=LEASE_WAIT_SECONDS, poll_interval=LEASE_WAIT_SECONDS / 10)
        except filelock.Timeout:
            return None
        return lock

    def begin(self) -> Attempt:
        """Take ownership of the stage and open a new attempt. Raises :class:`StageBusy` if another process owns it."""
        lock = self._try_lease()
        if lock is None:
            raise StageBusy(self.key)
        number = max(self.attempts(), default=0) + 1
        self.attempt_path(number).mkdir()
        return Attempt(self, number, lock)


class Attempt:
    """One process's attempt at a stage; a context manager that releases the stage at its end."""

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
        """Append one line to ``events.jsonl``. Raises ``ValueError`` for NaN and infinity."""
        if self._events is None:
            self._events = (self.path / "events.jsonl").open("a", buffering=1)
        self._events.write(json.dumps({"event": event, "time": round(time.time(), 3), **fields}, allow_nan=False) + "\n")

    def publish(self, source: Path, target: Path) -> bool:
        """Link a finished file into the run directory; False if another attempt did so before."""
        return link_new(source, target)

    def finish(self, result: dict[str, Any]) -> bool:
        """Record the result and publish it as the stage's result; False if another attempt's result was accepted before."""
        write_json(self.path / "result.json", result)
        accepted = self.publish(self.path / "result.json", self.run.path / "result.json")
        self.event("state", state="done" if accepted else "superseded")
        return accepted

    def fail(self, failure: Failure) -> None:
        """Record why this attempt ended."""
        write_json(self.path / "failure.json", failure.model_dump())
        self.event("state", state="failed", failure=failure.state, message=failure.message)
