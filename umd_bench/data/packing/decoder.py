"""From picture lists to rows: pictures are decoded in parallel and stay in order.

A broken picture is refused or skipped. A file that cannot be opened is always an error.
"""

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
from umd_bench.data.packs.row_source import RowSource
from umd_bench.data.readers.picture_list import PictureList
from umd_bench.data.readers.pictures import decode_batch, init_decoding_process

ON_CORRUPT = ("refuse", "skip")
_CHUNK = 8  # pictures per task of a decoding process
_CHUNKS_AHEAD = 4  # tasks queued per process, so that it has work while a shard is written


class Decoder:
    """Decodes pictures to uint8 [3, size, size] in ``workers`` processes; in this process if ``pool`` is None."""

    def __init__(self, size: int, resize: str, pool: ProcessPoolExecutor | None, workers: int) -> None:
        self._size, self._resize, self._pool = size, resize, pool
        self._ahead = _CHUNKS_AHEAD * workers

    def decoded(self, pictures: PictureList, start: int) -> Iterator[NDArray[np.uint8] | str]:
        """Each picture from ``start`` on, or the reason why it cannot be read, in order. Later pictures are decoded in advance.

        Raises :class:`UserError` if a file cannot be opened, or if a decoding process dies.
        """
        chunks = (range(i, min(i + _CHUNK, len(pictures))) for i in range(start, len(pictures), _CHUNK))
        batches = ([pictures.load(i) for i in chunk] for chunk in chunks)
        if self._pool is None:
            for batch in batches:
                yield from decode_batch(batch, self._size, self._resize)
            return
        waiting: deque[Future[list[NDArray[np.uint8] | str]]] = deque()
        try:
            for batch in batches:
                waiting.append(self._pool.submit(decode_batch, batch, self._size, self._resize))
                if len(waiting) > self._ahead:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise UserError(
                "a decoding process died (out of memory?): give fewer --workers; finished shards are kept"
            ) from None

    def rows(self, pictures: PictureList, on_corrupt: str) -> RowSource:
        """The rows of a split. Reading raises :class:`UserError` as :meth:`decoded`.

        With ``on_corrupt`` "refuse", it also raises one for the first broken picture.
        """
        reasons: dict[int, str] = {}
        stream, position = self.decoded(pictures, 0), 0

        def read(start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
            nonlocal stream, position
            if start != position:  # rows in between were packed earlier
                stream = self.decoded(pictures, start)
            decoded = list(itertools.islice(stream, stop - start))
            position = stop
            kept = np.array([not isinstance(picture, str) for picture in decoded], np.bool_)
            for i in np.flatnonzero(~kept).tolist():
                reasons[start + i] = f"{pictures.names[start + i]}: {decoded[i]}"
                if on_corrupt == "refuse":
                    raise UserError(
                        f"{pictures.names[start + i]} cannot be read ({decoded[i]}): repair or remove it, or leave it out with "
                        "--on-corrupt skip"
                    )
            pixels = [picture for picture in decoded if not isinstance(picture, str)]
            return np.stack(pixels) if pixels else np.empty((0, 3, self._size, self._size), np.uint8), kept

        return RowSource(pictures.labels, (3, self._size, self._size), np.uint8, read, reasons)


@contextmanager
def decoder(size: int, resize: str, workers: int) -> Iterator[Decoder]:
    """A decoder whose processes run until the context ends."""
    if workers == 1:
        yield Decoder(size, resize, None, 1)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=init_decoding_process)
    try:
        yield Decoder(size, resize, pool, workers)
    finally:
        pool.shutdown(cancel_futures=True)
