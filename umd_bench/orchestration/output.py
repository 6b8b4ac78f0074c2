"""What a stage's process prints, kept in the attempt's folder: prints, warnings, and what libraries write below Python.

Standard output and error *are* the file while the stage runs, so that a crash's last words are in it too; where a person looks
at this process's own terminal, what is added to the file is copied there.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

OUTPUT_FILE = "output.log"
COPY_SECONDS = 0.2
_STREAMS = ("stdout", "stderr")

_copied: ContextVar[bool] = ContextVar("copied", default=False)


@contextlib.contextmanager
def copied_to_the_terminal() -> Iterator[None]:
    """What stages print within is also written to where it would have gone: for stages in a command's own process."""
    token = _copied.set(True)
    try:
        yield
    finally:
        _copied.reset(token)


@contextlib.contextmanager
def kept_output(folder: Path) -> Iterator[None]:
    """Send this process's standard output and error to ``folder/output.log``; a file without a byte is removed again."""
    path = folder / OUTPUT_FILE
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    before = {name: getattr(sys, name) for name in _STREAMS}
    _flush()
    own = [os.dup(1), os.dup(2)]
    # To the error stream: a verb's own output may be read by a program.
    copier = _Copier(path, own[1]) if _copied.get() else None
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        for number, name in enumerate(_STREAMS, start=1):  # theirs may be a pytest's or a live table's
            setattr(sys, name, open(number, "w", buffering=1, closefd=False, errors="replace"))  # noqa: SIM115
        yield
    finally:
        _flush()
        for name, stream in before.items():
            setattr(sys, name, stream)
        for number, descriptor in enumerate(own, start=1):
            os.dup2(descriptor, number)
        if copier is not None:
            copier.close()
        for descriptor in (log, *own):
            os.close(descriptor)
        if path.stat().st_size == 0:
            path.unlink()


def _flush() -> None:
    """Python's buffers and the C library's, each to where the descriptors point now."""
    for name in _STREAMS:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            getattr(sys, name).flush()
    ctypes.CDLL(None).fflush(None)


class _Copier:
    """A thread that copies what is added to a file to a descriptor."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor = path, descriptor
        self._at = path.stat().st_size
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(COPY_SECONDS):
            self._copy()
        self._copy()

    def _copy(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._at)
            added = file.read()
        self._at += len(added)
        with contextlib.suppress(OSError):  # a terminal that has gone away stops no stage
            while added:
                added = added[os.write(self._descriptor, added) :]

    def close(self) -> None:
        """Copy the rest."""
        self._ended.set()
        self._thread.join()
