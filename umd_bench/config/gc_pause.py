"""Making many objects that stay, without the collector of reference cycles walking all of them again and again."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Cycles are not looked for inside; afterwards they are as before. Also a decorator.

    Each full pass walks everything that is alive, in a process with torch hundreds of thousands of objects, and thousands of
    trials or run directories being read set off several that find nothing. What is not part of a cycle is freed as ever.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
