"""Albums to rows: pictures decoded in parallel, in order, and what is done about one that cannot be read."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import UserError
from umd_bench.data.packs.writer import Rows
from umd_bench.data.readers.picture_list import Album
from umd_bench.data.readers.pictures import decode_all, start_process

ON_CORRUPT = ("refuse", "skip")
_CHUNK = 8  # pictures sent to a process at once
_CHUNKS_AHEAD = 4  # for each process: it has work while a shard is written


class Decoder:
    """Decodes pictures to uint8 [3, size, size] in ``workers`` processes; in this process where there is one."""

    def __init__(self, size: int, resize: str, pool: ProcessPoolExecutor | None, workers: int) -> None:
        self._size, self._resize, self._pool = size, resize, pool
        self._ahead = _CHUNKS_AHEAD * workers

    def decoded(self, album: Album, start: int) -> Iterator[NDArray[np.uint8] | str]:
        """Each picture from ``start`` on, or why it cannot be read; in order, while later ones are decoded already.

        Raises :class:`UserError` when a process dies.
        """
        chunks = (range(i, min(i + _CHUNK, len(album))) for i in range(start, len(album), _CHUNK))
        work = ([album.load(i) for i in chunk] for chunk in chunks)
        if self._pool is None:
            for pictures in work:
                yield from decode_all(pictures, self._size, self._resize)
            return
        waiting: deque[Future[list[NDArray[np.uint8] | str]]] = deque()
        try:
            for pictures in work:
                waiting.append(self._pool.submit(decode_all, pictures, self._size, self._resize))
                if len(waiting) > self._ahead:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError("a decoding process died (out of memory?): give fewer workers; what is packed is kept") from None

    def rows(self, album: Album, on_corrupt: str) -> Rows:
        """The rows of a split. ``on_corrupt`` "refuse" raises :class:`UserError` for the first that cannot be read."""
        reasons: dict[int, str] = {}
        stream, position = self.decoded(album, 0), 0

        def read(start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
            nonlocal stream, position
            if start != position:  # what lies between was packed earlier
                stream = self.decoded(album, start)
            decoded = list(itertools.islice(stream, stop - start))
            position = stop
            kept = np.array([not isinstance(found, str) for found in decoded], np.bool_)
            for i in np.flatnonzero(~kept).tolist():
                reasons[start + i] = f"{album.names[start + i]}: {decoded[i]}"
                if on_corrupt == "refuse":
                    raise UserError(
                        f"{album.names[start + i]} cannot be read ({decoded[i]}): mend or remove it, or pack without it by "
                        "--on-corrupt skip"
                    )
            pixels = [found for found in decoded if not isinstance(found, str)]
            return np.stack(pixels) if pixels else np.empty((0, 3, self._size, self._size), np.uint8), kept

        return Rows(album.labels, (3, self._size, self._size), np.uint8, read, reasons)


@contextmanager
def decoder(size: int, resize: str, workers: int) -> Iterator[Decoder]:
    """A decoder whose processes live as long as the context."""
    if workers == 1:
        yield Decoder(size, resize, None, 1)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=start_process)
    try:
        yield Decoder(size, resize, pool, workers)
    finally:
        pool.shutdown(cancel_futures=True)
