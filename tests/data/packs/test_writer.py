"""An interrupted packing continues after its last valid shard and ends in the same bytes."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from umd_bench.config.errors import UserError
from umd_bench.data.packs import writer
from umd_bench.data.packs.manifest import Manifest, read_manifest
from umd_bench.data.packs.pack import Pack, verify
from umd_bench.data.packs.row_source import Read, RowSource, rows_from_arrays
from umd_bench.data.packs.writer import PackProgress, write_pack

N, SHAPE = 10, (3, 4, 4)
IMAGES = np.random.default_rng(0).integers(0, 256, (N, *SHAPE), dtype=np.uint8)
LABELS = np.arange(N, dtype=np.int64) % 2
Ranges = list[tuple[int, int]]


@pytest.fixture(autouse=True)
def _shards_of_four(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 4 * IMAGES[0].nbytes)
    monkeypatch.setattr(writer, "_READ_ROWS", 2)


def draft(**fields: Any) -> Manifest:
    facts = {"name": "own", "version": 1, "size": 4, "channels": 3, "class_names": ("a", "b"), "licence": "none"}
    return Manifest(**(facts | {"counts": {}, "shards": {}, "sha256": {}, "digest": ""} | fields))


def splits(read: Read | None = None, reads: Ranges | None = None) -> dict[str, RowSource]:
    def noted(start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        if reads is not None:
            reads.append((start, stop))
        return (read or rows_from_arrays(IMAGES, LABELS).read)(start, stop)

    return {"train": RowSource(LABELS, SHAPE, np.uint8, noted), "test": rows_from_arrays(IMAGES[:3], LABELS[:3])}


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def stop_at(row: int, error: BaseException) -> Read:
    def read(start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        if start <= row < stop:
            raise error
        return rows_from_arrays(IMAGES, LABELS).read(start, stop)

    return read


def test_rows_come_back_in_bounded_shards(tmp_path: Path) -> None:
    write_pack(tmp_path / "own", draft(), splits(), inputs="x")
    packed = Pack(tmp_path / "own", read_manifest(tmp_path / "own"))
    verify(packed)
    assert packed.manifest.shards == {"train": (4, 4, 2), "test": (3,)}
    assert np.array_equal(packed.split("train").images, IMAGES)
    assert np.array_equal(packed.split("train").labels, LABELS)
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_rows_may_be_of_any_shape_and_type(tmp_path: Path) -> None:
    moments = np.random.default_rng(1).standard_normal((N, 2, 2, 4, 8, 8)).astype(np.float16)
    rows = {"train": rows_from_arrays(moments, LABELS), "test": rows_from_arrays(moments[:2], LABELS[:2])}
    write_pack(tmp_path / "own", draft(), rows, inputs="x")
    packed = Pack(tmp_path / "own", read_manifest(tmp_path / "own"))
    assert packed.manifest.dtype == "float16"
    assert packed.manifest.shape == (2, 2, 4, 8, 8)
    assert np.array_equal(packed.split("train").images, moments)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), UserError("a file is broken"), OSError(5, "the disk is gone")])
def test_an_interrupted_packing_continues_after_its_last_shard(error: BaseException, tmp_path: Path) -> None:
    write_pack(tmp_path / "whole", draft(), splits(), inputs="x")
    with pytest.raises((KeyboardInterrupt, UserError)):
        write_pack(tmp_path / "own", draft(), splits(stop_at(7, error)), inputs="x")
    assert not (tmp_path / "own").exists()
    reads: Ranges = []
    seen: list[PackProgress] = []
    write_pack(tmp_path / "own", draft(), splits(reads=reads), inputs="x", progress=seen.append)
    assert reads == [(4, 6), (6, 8), (8, 10)]
    assert seen[0] == PackProgress(4, 13, 4, 0)
    assert seen[-1] == PackProgress(13, 13, 4, 0)
    assert contents(tmp_path / "own") == contents(tmp_path / "whole")
    assert {path.name for path in tmp_path.iterdir()} == {"own", "whole"}


@pytest.mark.parametrize("other", [{"size": 8, "shape": SHAPE}, {"version": 2}, {"options": {"resize": "aliased"}}, "inputs"])
def test_shards_of_other_inputs_are_not_used(other: dict[str, Any] | str, tmp_path: Path) -> None:
    with pytest.raises(UserError):
        write_pack(tmp_path / "own", draft(), splits(stop_at(7, UserError("broken"))), inputs="x")
    reads: Ranges = []
    facts, inputs = (draft(), "y") if isinstance(other, str) else (draft(**other), "x")
    write_pack(tmp_path / "own", facts, splits(reads=reads), inputs=inputs)
    assert reads[0] == (0, 2)


def unfinished(root: Path) -> Path:
    with pytest.raises(UserError):
        write_pack(root / "own", draft(), splits(stop_at(9, UserError("broken"))), inputs="x")
    (work,) = root.iterdir()
    return work


def change_a_shard(work: Path) -> None:
    path = work / "files" / "train-images-00001.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def cut_the_journal(work: Path) -> None:
    path = work / "journal.jsonl"
    path.write_text(path.read_text()[:-20])


def change_the_journal(work: Path) -> None:
    path = work / "journal.jsonl"
    path.write_text("\n".join(["{}", *path.read_text().splitlines()[1:]]))


@pytest.mark.parametrize(
    ("damage", "first"), [(change_a_shard, (4, 6)), (cut_the_journal, (4, 6)), (change_the_journal, (0, 2))]
)
def test_a_shard_that_differs_from_the_journal_is_read_again(
    damage: Callable[[Path], None], first: tuple[int, int], tmp_path: Path
) -> None:
    damage(unfinished(tmp_path))
    reads: Ranges = []
    write_pack(tmp_path / "own", draft(), splits(reads=reads), inputs="x")
    assert reads[0] == first
    verify(Pack(tmp_path / "own", read_manifest(tmp_path / "own")))


def leave_out(*indices: int) -> dict[str, RowSource]:
    reasons: dict[int, str] = {}

    def read(start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        kept = ~np.isin(np.arange(start, stop), indices)
        reasons.update({i: f"b/{i}.jpg: truncated" for i in indices if start <= i < stop})
        return IMAGES[start:stop][kept], kept

    return {"train": RowSource(LABELS, SHAPE, np.uint8, read, reasons), "test": rows_from_arrays(IMAGES[:3], LABELS[:3])}


def test_rows_that_are_left_out_are_listed_and_counted_also_after_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pack(tmp_path / "whole", draft(), leave_out(1, 2, 9), inputs="x")
    packed = Pack(tmp_path / "whole", read_manifest(tmp_path / "whole"))
    kept = [0, 3, 4, 5, 6, 7, 8]
    assert np.array_equal(packed.split("train").images, IMAGES[kept])
    assert np.array_equal(packed.split("train").labels, LABELS[kept])
    assert packed.manifest.notes["skipped"] == "3 of 13 images could not be read: skipped.txt"
    lines = (packed.path / "skipped.txt").read_text().splitlines()
    assert lines == [f"train: b/{i}.jpg: truncated" for i in (1, 2, 9)]

    broken = leave_out(1, 2, 9)
    save = writer.save_array
    monkeypatch.setattr(writer, "save_array", lambda path, x: 1 / 0 if path.name == "train-images-00002.npy" else save(path, x))
    with pytest.raises(ZeroDivisionError):
        write_pack(tmp_path / "own", draft(), broken, inputs="x")
    monkeypatch.setattr(writer, "save_array", save)
    seen: list[PackProgress] = []
    write_pack(tmp_path / "own", draft(), leave_out(1, 2, 9), inputs="x", progress=seen.append)
    assert seen[0].skipped == 2
    assert contents(tmp_path / "own") == contents(tmp_path / "whole")


def test_a_split_without_any_row_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"all 10 images of its train split were left out"):
        write_pack(tmp_path / "own", draft(), leave_out(*range(N)), inputs="x")
    assert not (tmp_path / "own").exists()


def test_a_full_disk_is_reported_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "free_bytes", lambda _: 100)
    reads: Ranges = []
    with pytest.raises(UserError, match=r"own cannot be packed into .*: it needs 0\.00 GiB, and the disk has 0\.00 GiB free"):
        write_pack(tmp_path / "own", draft(), splits(reads=reads), inputs="x")
    assert not reads
    assert not list(tmp_path.iterdir())


def test_only_missing_shards_must_fit_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unfinished(tmp_path)
    monkeypatch.setattr(writer, "free_bytes", lambda _: 5 * (IMAGES[0].nbytes + 8))  # 2 of train and 3 of test
    write_pack(tmp_path / "own", draft(), splits(), inputs="x")
    verify(Pack(tmp_path / "own", read_manifest(tmp_path / "own")))


def test_the_second_of_two_packers_waits_and_reads_nothing(tmp_path: Path) -> None:
    begun, reads = threading.Event(), [list[tuple[int, int]](), list[tuple[int, int]]()]

    def slow(start: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        begun.set()
        return rows_from_arrays(IMAGES, LABELS).read(start, stop)

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(write_pack, tmp_path / "own", draft(), splits(slow, reads[0]), inputs="x")
        begun.wait(10)
        two = pool.submit(write_pack, tmp_path / "own", draft(), splits(slow, reads[1]), inputs="x")
        one.result(20)
        two.result(20)
    assert len(reads[0]) == 5
    assert not reads[1]
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


KILLED = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import test_writer
from umd_bench.data.packs import row_source, writer
writer.SHARD_BYTES, writer._READ_ROWS = 4 * test_writer.IMAGES[0].nbytes, 2
def hang(start, stop):
    if start >= 6:
        print("reading", flush=True)
        time.sleep(60)
    return row_source.rows_from_arrays(test_writer.IMAGES, test_writer.LABELS).read(start, stop)
writer.write_pack(Path(sys.argv[1]) / "own", test_writer.draft(), test_writer.splits(hang), inputs="x")
"""


def test_a_killed_packing_continues_to_the_same_bytes(tmp_path: Path) -> None:
    write_pack(tmp_path / "whole", draft(), splits(), inputs="x")
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as packer:
        assert packer.stdout is not None
        assert packer.stdout.readline() == "reading\n"
        packer.send_signal(signal.SIGKILL)
    assert not (tmp_path / "own").exists()
    reads: Ranges = []
    write_pack(tmp_path / "own", draft(), splits(reads=reads), inputs="x")
    assert reads[0] == (4, 6)
    assert contents(tmp_path / "own") == contents(tmp_path / "whole")


def test_fields_that_are_not_set_are_neither_in_the_digest_nor_in_the_file(tmp_path: Path) -> None:
    write_pack(tmp_path / "own", draft(), splits(), inputs="x")
    stated = json.loads((tmp_path / "own" / "manifest.json").read_text())
    assert not {"options", "shape", "dtype"} & set(stated)
    write_pack(tmp_path / "chosen", draft(options={"resize": "aliased"}), splits(), inputs="x")
    assert read_manifest(tmp_path / "chosen").digest != read_manifest(tmp_path / "own").digest
