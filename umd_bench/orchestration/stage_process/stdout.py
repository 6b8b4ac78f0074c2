"""Keep a stage's output in the attempt's folder: prints, warnings, and the output of C libraries.

While the stage runs, standard output and error are redirected to the file itself, so it also holds the last lines before a
crash. If a person watches this process's terminal, a thread copies new lines from the file to the terminal.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

OUTPUT_FILE = "output.log"
COPY_SECONDS = 0.2

_copied: ContextVar[bool] = ContextVar("copied", default=False)


@contextlib.contextmanager
def copied_to_the_terminal() -> Iterator[None]:
    """Also copy the output of stages run in this block to the terminal: for stages in a command's own process."""
    token = _copied.set(True)
    try:
        yield
    finally:
        _copied.reset(token)


@contextlib.contextmanager
def captured_output(folder: Path) -> Iterator[None]:
    """Redirect this process's standard output and error to ``folder/output.log``; an empty file is removed at the end."""
    path = folder / OUTPUT_FILE
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    before = _Streams((os.dup(1), os.dup(2)), (sys.stdout, sys.stderr))
    # To the error stream: a program may read the command's own output.
    copier = _Copier(path, before.descriptors[1]) if _copied.get() else None
    opened = [open(number, "w", buffering=1, closefd=False, errors="replace") for number in (1, 2)]  # noqa: SIM115
    ours = _Streams((log, log), (opened[0], opened[1]))  # pytest or a live table may have replaced sys.stdout
    ours.use()
    _redirected.append((before, ours))
    try:
        yield
    finally:
        _redirected.pop()
        before.use()
        if copier is not None:
            copier.close()
        for descriptor in (log, *before.descriptors):
            os.close(descriptor)
        if path.stat().st_size == 0:
            path.unlink()


@contextlib.contextmanager
def output_set_aside() -> Iterator[None]:
    """Restore the original streams for this block: for a command that works between the steps of its stage."""
    if not _redirected:
        yield
        return
    before, ours = _redirected[-1]
    before.use()
    try:
        yield
    finally:
        ours.use()


@dataclass(frozen=True)
class _Streams:
    """Targets of standard output and error: the descriptors behind 1 and 2, and Python's stream objects."""

    descriptors: tuple[int, int]
    objects: tuple[TextIO, TextIO]

    def use(self) -> None:
        _flush()
        for number, descriptor in enumerate(self.descriptors, start=1):
            os.dup2(descriptor, number)
        sys.stdout, sys.stderr = self.objects


_redirected: list[tuple[_Streams, _Streams]] = []  # (before, during), innermost last


def _flush() -> None:
    """Flush Python's buffers and the C library's to where the descriptors point now."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)


class _Copier:
    """A thread that copies new content of a file to a descriptor."""

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
        with contextlib.suppress(OSError):  # a closed terminal must not stop the stage
            while added:
                added = added[os.write(self._descriptor, added) :]

    def close(self) -> None:
        """Copy the rest and end the thread."""
        self._ended.set()
        self._thread.join()
