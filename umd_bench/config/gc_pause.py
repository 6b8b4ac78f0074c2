"""Pause cyclic garbage collection while many long-lived objects are created."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Disable the cyclic collector inside the block; restore its state afterwards. Also works as a decorator.

    Creating thousands of trials, or reading thousands of run directories, triggers several full collections. Each walks every
    live object (hundreds of thousands in a process with torch) and finds nothing. Reference counting still frees objects.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
