"""Writing of packs: rows of any shape and type in shards of bounded size; a killed packing can be continued.

    root/.<folder>.<inputs>/      hidden, next to the folder that it becomes
        lock                      held while a process writes; the system frees it when the process dies
        journal.jsonl             the inputs, then one line for each finished shard: its hash and the rows that were left out
        files/                    becomes root/<folder>/ in one rename

A packing of the same inputs keeps a finished shard if its hash equals the journal's. Other inputs (name, version, size,
options, raw files) have another hidden folder, so shards of different inputs are never mixed up. The number of rows in a shard
depends only on the size of a row, so the files are equal byte for byte whether a packing was interrupted or not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import filelock
import numpy as np
from numpy.typing import NDArray

from umd_bench.config.errors import UserError
from umd_bench.data.packs.journal import FinishedShard, append_shard, begin_journal, has_finished, read_journal
from umd_bench.data.packs.manifest import MANIFEST_FILE, SKIPPED_FILE, Manifest, images_file, labels_file, sha256_of
from umd_bench.data.packs.row_source import RowSource

SHARD_BYTES = 256 * 2**20  # largest size of a shard; a packing holds one shard in memory
_READ_BYTES, _READ_ROWS = 64 * 2**20, 512  # limits of one read; progress is reported after each
_LEFTOVER_AGE_S = 24 * 3600  # a packing removes an unfinished folder of other inputs a day after the last write in it
_GIB = 2**30


@dataclass(frozen=True)
class PackProgress:
    """Of the ``total`` rows of all splits, ``done`` have been read. ``resumed`` of these were finished by an earlier packing,
    and ``skipped`` of these were left out."""

    done: int
    total: int
    resumed: int
    skipped: int


def write_pack(
    target: Path,
    draft: Manifest,
    splits: Mapping[str, RowSource],
    *,
    inputs: str,
    extra_files: Mapping[str, bytes | Path] = MappingProxyType({}),
    progress: Callable[[PackProgress], None] = lambda _: None,
) -> None:
    """Write ``splits`` as the pack ``target``, unless it exists or another process writes it first.

    ``draft`` is the manifest without ``counts``, ``shards``, ``sha256`` and ``digest``. This function fills them in, and also
    ``shape`` and ``dtype`` if a row is not a uint8 image. ``inputs`` identifies the sources of the rows (a hash, or names
    and sizes of raw files): an interrupted packing is continued only if ``inputs`` is unchanged. ``extra_files`` are other
    files of the pack: name -> content, or a file to copy. ``progress`` is called before the first read and after each. If two
    processes pack the same data set, the second one waits for the first and uses its pack.

    Raises :class:`UserError` if the disk has no room (before anything is written), if the folder cannot be written, and if all
    rows of a split are left out. An ``OSError`` of ``read`` becomes a :class:`UserError` too; its other errors pass through.
    After an error, the next packing reuses the finished shards.
    """
    facts = draft.model_copy(update=_row_facts(draft, splits))
    identity = _identity(facts, splits, inputs)
    work = target.parent / f".{target.name}.{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    try:
        _remove_leftovers(target, work)
        with _locked(work):
            try:
                if not target.exists():
                    _write(target, work, facts, splits, identity, extra_files, progress)
            finally:  # The lock is still held. A process that waits for it makes the folder and the lock file again.
                if target.exists() or not has_finished(work / "journal.jsonl"):
                    shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{draft.name} cannot be packed into {target.parent} ({error.strerror or error}): give a root with room"
        ) from None


def _locked(work: Path) -> AbstractContextManager[Any]:
    """Hold the lock of the folder ``work``, which is made again if the previous owner has removed it."""
    while True:
        work.mkdir(parents=True, exist_ok=True)
        try:
            return filelock.FileLock(work / "lock", is_singleton=False, thread_local=False).acquire()
        except FileNotFoundError:
            continue


def rows_per_shard(row_bytes: int) -> int:
    """Number of rows that a shard covers, including rows that are left out."""
    return max(1, SHARD_BYTES // row_bytes)


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk that ``folder`` is on."""
    return shutil.disk_usage(folder).free


def _write(
    target: Path,
    work: Path,
    facts: Manifest,
    splits: Mapping[str, RowSource],
    identity: str,
    extra_files: Mapping[str, bytes | Path],
    progress: Callable[[PackProgress], None],
) -> None:
    """Write the shards that the journal lacks, then the manifest; then rename the folder."""
    files, journal = work / "files", work / "journal.jsonl"
    files.mkdir(exist_ok=True)
    finished = {(shard.split, shard.index): shard for shard in read_journal(journal, identity, files)}
    _require_room(target, facts.name, splits, finished)
    for path in files.iterdir():
        if path.name not in {images_file(*key) for key in finished}:
            path.unlink()  # written again below; the last packing may have ended while it wrote this file
    begin_journal(journal, identity, finished.values())

    total, resumed = sum(map(len, splits.values())), 0
    for name, rows in splits.items():
        resumed += sum(stop - start for index, start, stop in _ranges(rows) if (name, index) in finished)
    done, skipped = resumed, sum(len(shard.skipped) for shard in finished.values())
    progress(PackProgress(done, total, resumed, skipped))
    for name, rows in splits.items():
        for index, start, stop in _ranges(rows):
            if (name, index) in finished:
                continue
            buffer, filled = np.empty((stop - start, *rows.shape), rows.dtype), 0
            left_out: dict[int, str] = {}
            for low, high in _pieces(start, stop, rows.row_bytes):
                values, kept = rows.read(low, high)
                buffer[filled : filled + len(values)] = values
                filled += len(values)
                left_out |= {i: rows.reasons.get(i, "no reason given") for i in (low + np.flatnonzero(~kept)).tolist()}
                done += high - low
                progress(PackProgress(done, total, resumed, skipped + len(left_out)))
            if stop - start - filled != len(left_out):
                raise ValueError(f"{name} {start}..{stop}: read {filled} rows and left out {len(left_out)}")
            skipped += len(left_out)
            shard = FinishedShard(name, index, save_array(files / images_file(name, index), buffer[:filled]), left_out)
            finished[name, index] = shard
            append_shard(journal, shard)
    _seal(files, facts, splits, finished, _write_extra_files(files, extra_files))
    try:
        files.rename(target)
    except OSError:
        if not target.is_dir():
            raise  # if ``target`` exists, a packing of other inputs was finished first, and its pack stays


def _write_extra_files(files: Path, extra_files: Mapping[str, bytes | Path]) -> dict[str, str]:
    """Write the extra files, and return the SHA-256 of each."""
    for name, content in extra_files.items():
        if isinstance(content, Path):
            shutil.copyfile(content, files / name)
        else:
            (files / name).write_bytes(content)
        with (files / name).open("rb") as file:
            os.fsync(file.fileno())
    return {name: sha256_of(files / name) for name in extra_files}


def _seal(
    files: Path,
    facts: Manifest,
    splits: Mapping[str, RowSource],
    finished: Mapping[tuple[str, int], FinishedShard],
    sha256: dict[str, str],
) -> None:
    """Write the labels, the list of rows that were left out, and the manifest; ``sha256`` has the hashes of the other files."""
    counts, shards = {}, {}
    left_out: list[str] = []
    for name, rows in splits.items():
        kept, sizes = np.ones(len(rows), np.bool_), []
        for index, start, stop in _ranges(rows):
            shard = finished[name, index]
            kept[list(shard.skipped)] = False
            left_out += [f"{name}: {shard.skipped[i]}" for i in sorted(shard.skipped)]
            sizes.append(stop - start - len(shard.skipped))
            sha256[images_file(name, index)] = shard.sha256
        if not kept.any():
            raise UserError(f"{facts.name} cannot be packed: all {len(rows)} images of its {name} split were left out")
        sha256[labels_file(name)] = save_array(files / labels_file(name), rows.labels[kept])
        counts[name], shards[name] = int(kept.sum()), tuple(sizes)
    notes = dict(facts.notes)
    if left_out:  # the list is not hashed, as notes are not, since the words for a damaged file depend on the decoder's version
        (files / SKIPPED_FILE).write_text("".join(f"{line}\n" for line in left_out), encoding="utf-8")
        notes["skipped"] = f"{len(left_out):,} of {sum(map(len, splits.values())):,} images could not be read: {SKIPPED_FILE}"
    manifest = facts.model_copy(update={"counts": counts, "shards": shards, "sha256": sha256, "notes": notes}).sealed()
    with (files / MANIFEST_FILE).open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1, exclude_none=True) + "\n")
        file.flush()
        os.fsync(file.fileno())


def save_array(path: Path, array: NDArray[Any]) -> str:
    """Save as .npy in C order, sync to disk, and return the file's SHA-256."""
    with path.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return sha256_of(path)


def _row_facts(draft: Manifest, splits: Mapping[str, RowSource]) -> dict[str, Any]:
    """The manifest's shape (None for images of the draft's size) and dtype (None for uint8)."""
    kinds = {(rows.shape, np.dtype(rows.dtype)) for rows in splits.values()}
    if len(kinds) != 1:
        raise ValueError(f"the splits' rows differ: {sorted(map(str, kinds))}")
    shape, dtype = kinds.pop()
    return {
        "shape": None if shape == (draft.channels, draft.size, draft.size) else shape,
        "dtype": None if dtype == np.uint8 else str(dtype),
    }


def _identity(facts: Manifest, splits: Mapping[str, RowSource], inputs: str) -> str:
    """Everything that the bytes of the shards depend on, as text."""
    parts = {
        name: [len(rows), rows_per_shard(rows.row_bytes), hashlib.sha256(rows.labels.tobytes()).hexdigest()]
        for name, rows in splits.items()
    }
    stated = facts.model_dump(mode="json", exclude={"notes", "digest", "counts", "shards", "sha256"})
    return json.dumps([stated, parts, hashlib.sha256(inputs.encode()).hexdigest()], sort_keys=True)


def _ranges(rows: RowSource) -> list[tuple[int, int, int]]:
    """(index, start, stop) of each shard; a split without rows has one empty shard."""
    step = rows_per_shard(rows.row_bytes)
    starts = range(0, max(1, len(rows)), step)
    return [(index, start, min(start + step, len(rows))) for index, start in enumerate(starts)]


def _pieces(start: int, stop: int, row_bytes: int) -> list[tuple[int, int]]:
    step = min(_READ_ROWS, max(1, _READ_BYTES // row_bytes))
    return [(low, min(low + step, stop)) for low in range(start, stop, step)]


def _require_room(
    target: Path, name: str, splits: Mapping[str, RowSource], finished: Mapping[tuple[str, int], FinishedShard]
) -> None:
    needed = sum(
        (stop - start) * (rows.row_bytes + rows.labels.itemsize)
        for split, rows in splits.items()
        for index, start, stop in _ranges(rows)
        if (split, index) not in finished
    )
    free = free_bytes(target.parent)
    if needed > free:
        raise UserError(
            f"{name} cannot be packed into {target.parent}: it needs {needed / _GIB:.2f} GiB, and the disk has "
            f"{free / _GIB:.2f} GiB free"
        )


def _remove_leftovers(target: Path, work: Path) -> None:
    """Remove unfinished folders of other inputs that are older than a day."""
    for leftover in target.parent.glob(f".{target.name}.*"):
        try:
            newest = max(path.stat().st_mtime for path in (leftover, *leftover.iterdir()))
            if leftover != work and time.time() - newest > _LEFTOVER_AGE_S:
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError:
            continue  # its packing has just finished
