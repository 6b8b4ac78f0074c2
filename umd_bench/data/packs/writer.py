"""How a pack comes to be: rows of any shape and type in bounded shards, written so that a killed packing goes on later.

    root/.<folder>.<inputs>/      hidden, beside the folder that it becomes
        lock                      held while a process writes; the system frees it when the process dies
        journal.jsonl             the inputs, then a line for each finished shard: its hash and what was left out
        files/                    becomes root/<folder>/ in one rename

A finished shard is kept by whoever packs the same inputs next, once its hash is that of the journal; other inputs (name,
version, size, options, raw files) have another folder, so nothing of them is ever taken over. Which rows a shard covers
depends on their size only: the files are the same to the byte whether a packing was interrupted or not.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import filelock
import numpy as np
from numpy.typing import DTypeLike, NDArray

from umd_bench.config.errors import UserError
from umd_bench.data.packs.manifest import MANIFEST_FILE, SKIPPED_FILE, Manifest, images_file, labels_file, sha256_of

SHARD_BYTES = 256 * 2**20  # of a shard, which is also what a packing holds in memory
_READ_BYTES, _READ_ROWS = 64 * 2**20, 512  # asked for at once, between two reports of progress
_LEFTOVER_AGE_S = 24 * 3600  # other inputs' unfinished folders are removed when nobody has written to them for a day
_GIB = 2**30

# read(start, stop) -> (rows [k, *shape], kept bool [stop - start], k times true): rows start..stop-1 less those left out.
Read = Callable[[int, int], tuple[NDArray[Any], NDArray[np.bool_]]]


@dataclass(frozen=True)
class Rows:
    """What a split is written from.

    ``labels`` int64 [N]; ``shape`` and ``dtype`` of one row; ``read`` gives rows in order and is asked for each at most once.
    A row that ``read`` leaves out has its reason in ``reasons[index]`` (one line) by the time ``read`` returns.
    """

    labels: NDArray[np.int64]
    shape: tuple[int, ...]
    dtype: DTypeLike
    read: Read
    reasons: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def rows_of(images: NDArray[Any], labels: NDArray[np.int64]) -> Rows:
    """Rows that are in memory already: ``images`` [N, ...] and ``labels`` int64 [N]."""

    def read(start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        return images[start:stop], np.ones(stop - start, np.bool_)

    return Rows(labels, images.shape[1:], images.dtype, read)


@dataclass(frozen=True)
class Progress:
    """How far a packing is, in rows of all splits: ``done`` of ``total``, of which ``resumed`` came from an earlier one."""

    done: int
    total: int
    resumed: int
    skipped: int


@dataclass(frozen=True)
class _Shard:
    """A line of the journal: rows start..stop-1 of a split less ``skipped`` (index: reason), in a file with this hash."""

    split: str
    index: int
    sha256: str
    skipped: dict[int, str]


def write_pack(
    target: Path,
    draft: Manifest,
    splits: Mapping[str, Rows],
    *,
    inputs: str,
    beside: Mapping[str, bytes | Path] = MappingProxyType({}),
    progress: Callable[[Progress], None] = lambda _: None,
) -> None:
    """Write ``splits`` as the pack ``target``, unless it is there, or another process writes it first.

    ``draft`` is the manifest without ``counts``, ``shards``, ``sha256`` and ``digest``, which are filled in here, as are
    ``shape`` and ``dtype`` where a row is no uint8 image. ``inputs`` states what the rows are read from (names and sizes of raw
    files, a hash): what an interrupted packing left is continued only where it is the same. ``beside`` are other files of
    the pack by name, as their content or as the file to copy. ``progress`` is called after each piece. Whoever comes second
    waits for the first, then finds its pack.

    Raises :class:`UserError` for a disk without room, before anything is written, for a folder that cannot be written, and
    for a split that nothing is left of; and what a ``read`` raises. Finished shards stay then, for the next packing.
    """
    facts = draft.model_copy(update=_row_facts(draft, splits))
    identity = _identity(facts, splits, inputs)
    work = target.parent / f".{target.name}.{hashlib.sha256(identity.encode()).hexdigest()[:12]}"
    try:
        _remove_leftovers(target, work)
        with _locked(work):
            try:
                if not target.exists():
                    _write(target, work, facts, splits, identity, beside, progress)
            finally:  # while the lock is held: the next one opens a lock file of its own
                if target.exists() or not _has_finished(work / "journal.jsonl"):
                    shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise UserError(
            f"{draft.name} cannot be packed into {target.parent} ({error.strerror or error}): give a root with room"
        ) from None


def _locked(work: Path) -> AbstractContextManager[Any]:
    """Hold the lock of the folder ``work``, made anew where the one before has removed it meanwhile."""
    while True:
        work.mkdir(parents=True, exist_ok=True)
        try:
            return filelock.FileLock(work / "lock", is_singleton=False, thread_local=False).acquire()
        except FileNotFoundError:
            continue


def rows_per_shard(row_bytes: int) -> int:
    """How many rows a shard has, whatever is left out of them later."""
    return max(1, SHARD_BYTES // row_bytes)


def free_bytes(folder: Path) -> int:
    """Room on the disk that ``folder`` is on."""
    return shutil.disk_usage(folder).free


def _write(
    target: Path,
    work: Path,
    facts: Manifest,
    splits: Mapping[str, Rows],
    identity: str,
    beside: Mapping[str, bytes | Path],
    progress: Callable[[Progress], None],
) -> None:
    """Write what the journal does not have, then the manifest, then rename."""
    files, journal = work / "files", work / "journal.jsonl"
    files.mkdir(exist_ok=True)
    finished = {(shard.split, shard.index): shard for shard in _read_journal(journal, identity, files)}
    _require_room(target, facts.name, splits, finished)
    for path in files.iterdir():
        if path.name not in {images_file(*key) for key in finished}:
            path.unlink()  # cut short by what ended the last packing
    lines = [json.dumps(identity), *(json.dumps(vars(shard)) for shard in finished.values())]
    journal.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    total, resumed = sum(map(len, splits.values())), 0
    for name, rows in splits.items():
        resumed += sum(stop - start for index, start, stop in _ranges(rows) if (name, index) in finished)
    done, skipped = resumed, sum(len(shard.skipped) for shard in finished.values())
    progress(Progress(done, total, resumed, skipped))
    for name, rows in splits.items():
        for index, start, stop in _ranges(rows):
            if (name, index) in finished:
                continue
            buffer, filled = np.empty((stop - start, *rows.shape), rows.dtype), 0
            left_out: dict[int, str] = {}
            for low, high in _pieces(start, stop, rows.row_bytes):
                found, kept = rows.read(low, high)
                buffer[filled : filled + len(found)] = found
                filled += len(found)
                left_out |= {i: rows.reasons.get(i, "no reason given") for i in (low + np.flatnonzero(~kept)).tolist()}
                done += high - low
                progress(Progress(done, total, resumed, skipped + len(left_out)))
            if stop - start - filled != len(left_out):
                raise ValueError(f"{name} {start}..{stop}: {filled} rows and {len(left_out)} left out")
            skipped += len(left_out)
            shard = _Shard(name, index, save_array(files / images_file(name, index), buffer[:filled]), left_out)
            finished[name, index] = shard
            with journal.open("a", encoding="utf-8") as file:
                file.write(json.dumps(vars(shard)) + "\n")
                file.flush()
                os.fsync(file.fileno())
    _seal(files, facts, splits, finished, _copied(files, beside))
    try:
        files.rename(target)
    except OSError:
        if not target.is_dir():
            raise  # else a packer of other inputs was first, and its folder stays


def _copied(files: Path, beside: Mapping[str, bytes | Path]) -> dict[str, str]:
    """Write the other files; the SHA-256 of each."""
    for name, content in beside.items():
        if isinstance(content, Path):
            shutil.copyfile(content, files / name)
        else:
            (files / name).write_bytes(content)
        with (files / name).open("rb") as file:
            os.fsync(file.fileno())
    return {name: sha256_of(files / name) for name in beside}


def _seal(
    files: Path,
    facts: Manifest,
    splits: Mapping[str, Rows],
    finished: Mapping[tuple[str, int], _Shard],
    sha256: dict[str, str],
) -> None:
    """Write the labels, the list of what was left out, and the manifest; ``sha256`` is of the other files."""
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
            raise UserError(f"{facts.name} cannot be packed: no image is left of its {name} split ({len(rows)} were there)")
        sha256[labels_file(name)] = save_array(files / labels_file(name), rows.labels[kept])
        counts[name], shards[name] = int(kept.sum()), tuple(sizes)
    notes = dict(facts.notes)
    if left_out:  # for the record, as the notes are: what a file's damage is called is the decoder's to say, so it has no sum
        (files / SKIPPED_FILE).write_text("".join(f"{line}\n" for line in left_out), encoding="utf-8")
        notes["skipped"] = f"{len(left_out):,} of {sum(map(len, splits.values())):,} images could not be read: {SKIPPED_FILE}"
    manifest = facts.model_copy(update={"counts": counts, "shards": shards, "sha256": sha256, "notes": notes}).sealed()
    with (files / MANIFEST_FILE).open("w", encoding="utf-8") as file:
        file.write(manifest.model_dump_json(indent=1, exclude_none=True) + "\n")
        file.flush()
        os.fsync(file.fileno())


def save_array(path: Path, array: NDArray[Any]) -> str:
    """Save as .npy in C order, sync, and return the file's SHA-256."""
    with path.open("wb") as file:
        np.save(file, np.ascontiguousarray(array), allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    return sha256_of(path)


def _row_facts(draft: Manifest, splits: Mapping[str, Rows]) -> dict[str, Any]:
    """The manifest's shape and dtype, where they are not those of a uint8 image."""
    kinds = {(rows.shape, np.dtype(rows.dtype)) for rows in splits.values()}
    if len(kinds) != 1:
        raise ValueError(f"the splits' rows differ: {sorted(map(str, kinds))}")
    shape, dtype = kinds.pop()
    return {
        "shape": None if shape == (draft.channels, draft.size, draft.size) else shape,
        "dtype": None if dtype == np.uint8 else str(dtype),
    }


def _identity(facts: Manifest, splits: Mapping[str, Rows], inputs: str) -> str:
    """All that decides the bytes of the shards, as text."""
    parts = {
        name: [len(rows), rows_per_shard(rows.row_bytes), hashlib.sha256(rows.labels.tobytes()).hexdigest()]
        for name, rows in splits.items()
    }
    stated = facts.model_dump(mode="json", exclude={"notes", "digest", "counts", "shards", "sha256"})
    return json.dumps([stated, parts, hashlib.sha256(inputs.encode()).hexdigest()], sort_keys=True)


def _ranges(rows: Rows) -> list[tuple[int, int, int]]:
    """(index, start, stop) of each shard; a split without rows has one that is empty."""
    step = rows_per_shard(rows.row_bytes)
    starts = range(0, max(1, len(rows)), step)
    return [(index, start, min(start + step, len(rows))) for index, start in enumerate(starts)]


def _pieces(start: int, stop: int, row_bytes: int) -> list[tuple[int, int]]:
    step = min(_READ_ROWS, max(1, _READ_BYTES // row_bytes))
    return [(low, min(low + step, stop)) for low in range(start, stop, step)]


def _read_journal(journal: Path, identity: str, files: Path) -> list[_Shard]:
    """The finished shards whose files are still what was written. A line that was cut short is of none."""
    try:
        first, *lines = journal.read_text(encoding="utf-8").splitlines()
        if json.loads(first) != identity:
            return []
    except (OSError, ValueError):
        return []
    finished = []
    for line in lines:
        try:
            entry = json.loads(line)
            skipped = {int(i): str(reason) for i, reason in entry["skipped"].items()}
            shard = _Shard(entry["split"], entry["index"], entry["sha256"], skipped)
            if sha256_of(files / images_file(shard.split, shard.index)) == shard.sha256:
                finished.append(shard)
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return finished


def _has_finished(journal: Path) -> bool:
    """Whether the journal has a line besides its first."""
    return journal.exists() and len(journal.read_bytes().splitlines()) > 1


def _require_room(target: Path, name: str, splits: Mapping[str, Rows], finished: Mapping[tuple[str, int], _Shard]) -> None:
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
    """Remove what other inputs left unfinished a day ago."""
    for leftover in target.parent.glob(f".{target.name}.*"):
        try:
            newest = max(path.stat().st_mtime for path in (leftover, *leftover.iterdir()))
            if leftover != work and time.time() - newest > _LEFTOVER_AGE_S:
                shutil.rmtree(leftover, ignore_errors=True)
        except OSError:
            continue  # its packer finished in between
