"""A data set is packed once, completely or not at all; a pack of another data set or version is an error."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from umd_bench.config.errors import UserError
from umd_bench.config.trial.data import DataConfig
from umd_bench.data.datasets import DATASETS, DatasetInfo, Splits
from umd_bench.data.open_data import open_data, open_pack
from umd_bench.data.packs import pack as pack_module
from umd_bench.data.packs import writer
from umd_bench.data.packs.pack import Pack, verify
from umd_bench.data.packs.sharded_array import ShardedArray

READS: list[Path | None] = []


def read_tiny(folder: Path | None) -> Splits:
    READS.append(folder)
    rng = np.random.default_rng(0)
    return {
        split: (rng.integers(0, 256, (n, 3, 4, 4), dtype=np.uint8), np.arange(n, dtype=np.int64) % 2)
        for split, n in (("train", 6), ("test", 4))
    }


def tiny(read: Callable[[Path | None], Splits] = read_tiny, *, version: int = 1) -> DatasetInfo:
    return DatasetInfo("tiny", version, 4, 3, ("even", "odd"), "none", read, lambda folder, n: {"kept": str(n)})


@pytest.fixture(autouse=True)
def _a_tiny_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DATASETS, "tiny", tiny())
    READS.clear()


def test_a_pack_has_the_images_that_were_read(tmp_path: Path) -> None:
    packed = open_pack("tiny", tmp_path)
    for name, (images, labels) in read_tiny(None).items():
        split = packed.split(name)
        assert isinstance(split.images, ShardedArray)
        assert np.array_equal(split.images, images)
        assert np.array_equal(split.labels, labels)
    assert packed.path == tmp_path / "tiny-v1.2"
    assert packed.manifest.counts == {"train": 6, "test": 4}
    assert packed.manifest.notes == {"kept": "10"}


def test_a_data_set_is_packed_once(tmp_path: Path) -> None:
    first = open_pack("tiny", tmp_path, Path("raw"))
    assert open_pack("tiny", tmp_path) == open_pack("tiny", tmp_path) == first
    assert [str(folder) for folder in READS] == ["raw"]


def test_the_digest_depends_on_content_and_facts_and_not_on_the_folder_or_the_notes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(folder: str, info: DatasetInfo) -> str:
        monkeypatch.setitem(DATASETS, "tiny", info)
        return open_pack("tiny", tmp_path / folder).manifest.digest

    def read_other(folder: Path | None) -> Splits:
        splits = read_tiny(folder)
        splits["test"][0][0, 0, 0, 0] ^= 1
        return splits

    here = digest("a", tiny())
    silent = DatasetInfo("tiny", 1, 4, 3, ("even", "odd"), "none", read_tiny)
    assert digest("b", silent) == here
    assert digest("c", tiny(read_other)) != here
    assert digest("d", tiny(version=2)) != here


def test_a_new_version_gets_another_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_pack("tiny", tmp_path)
    monkeypatch.setitem(DATASETS, "tiny", tiny(version=2))
    open_pack("tiny", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny-v1.2", "tiny-v2.2"]


KILLED_PACKER = """
import sys, time
from pathlib import Path
import numpy as np
from umd_bench.data import open_data
from umd_bench.data.packs import writer
from umd_bench.data.datasets import DATASETS, DatasetInfo
splits = {split: (np.zeros((2, 3, 4, 4), np.uint8), np.zeros(2, np.int64)) for split in ("train", "test")}
DATASETS["tiny"] = DatasetInfo("tiny", 1, 4, 3, ("even", "odd"), "none", lambda folder: splits)
save = writer.save_array
def save_then_hang(path, array):
    sha256 = save(path, array)
    if path.name == "test-labels.npy":
        print("all but the manifest", flush=True)
        time.sleep(60)
    return sha256
writer.save_array = save_then_hang
open_data.open_pack("tiny", Path(sys.argv[1]))
"""


def test_the_next_packer_ignores_the_unfinished_files_of_a_killed_one(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", KILLED_PACKER, str(tmp_path)], stdout=subprocess.PIPE, text=True) as packer:
        assert packer.stdout is not None
        assert packer.stdout.readline() == "all but the manifest\n"
        packer.send_signal(signal.SIGKILL)
    assert [path.name.startswith(".tiny-v1.2.") for path in tmp_path.iterdir()] == [True]
    verify(open_pack("tiny", tmp_path))


def test_leftovers_of_a_killed_packer_are_removed_after_a_day(tmp_path: Path) -> None:
    for name, age_h in (("old", 25), ("young", 23)):
        (tmp_path / f".tiny-v1.2.{name}").mkdir()
        then = time.time() - age_h * 3600
        os.utime(tmp_path / f".tiny-v1.2.{name}", (then, then))
    open_pack("tiny", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".tiny-v1.2.young", "tiny-v1.2"]


def test_two_simultaneous_packers_share_the_first_ones_pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both_have_read = threading.Barrier(2, timeout=20)

    def read_together(folder: Path | None) -> Splits:
        both_have_read.wait()
        return read_tiny(folder)

    monkeypatch.setitem(DATASETS, "tiny", tiny(read_together))
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda _: open_pack("tiny", tmp_path), range(2))
    assert one == two
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-v1.2"]
    verify(one)


def test_a_reader_that_fails_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(folder: Path | None) -> Splits:
        raise UserError("the raw files are missing")

    monkeypatch.setitem(DATASETS, "tiny", tiny(fail))
    with pytest.raises(UserError, match="raw files are missing"):
        open_pack("tiny", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_a_user_error_and_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, array: np.ndarray) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(writer, "save_array", full)
    with pytest.raises(UserError, match=r"tiny cannot be packed into .*No space left"):
        open_pack("tiny", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_root_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"the data folder .*file/root cannot be written.*UMD_BENCH_DATA"):
        open_pack("tiny", tmp_path / "file" / "root")
    assert not READS


def test_a_pack_in_a_read_only_root_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed = open_pack("tiny", tmp_path)
    monkeypatch.setattr(pack_module.tempfile, "TemporaryFile", lambda **_: pytest.fail("the root was written to"))
    assert open_pack("tiny", tmp_path) == packed


def change(packed: Pack, **fields: object) -> None:
    path = packed.path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"version": 2}, "describes tiny version 2, expected tiny version 1"),
        ({"name": "large"}, "describes large version 1, expected"),
        ({"licence": "another"}, "was changed after packing"),
        ({"surprise": 1}, "is not a pack's manifest"),
    ],
)
def test_a_manifest_that_does_not_match_the_pack_is_an_error_and_nothing_is_replaced(
    fields: dict[str, object], message: str, tmp_path: Path
) -> None:
    change(open_pack("tiny", tmp_path), **fields)
    with pytest.raises(UserError, match=f"{message}.*remove the folder"):
        open_pack("tiny", tmp_path)
    assert len(READS) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"\xff"])
def test_a_broken_manifest_is_an_error(content: bytes, tmp_path: Path) -> None:
    (open_pack("tiny", tmp_path).path / "manifest.json").write_bytes(content)
    with pytest.raises(UserError, match=r"manifest\.json is not a pack's manifest; remove"):
        open_pack("tiny", tmp_path)


def test_a_folder_copied_without_its_manifest_is_an_error(tmp_path: Path) -> None:
    (open_pack("tiny", tmp_path).path / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"manifest\.json cannot be read"):
        open_pack("tiny", tmp_path)


def test_a_data_set_without_its_own_size_has_one_pack_per_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizeless = replace(tiny(), size=None, class_names=(), n_classes=2)
    monkeypatch.setitem(DATASETS, "tiny", replace(sizeless, class_names=("even", "odd")))
    made = open_pack("tiny", tmp_path, size=4)
    assert made.path == tmp_path / "tiny-4-v1.2"
    assert made.split("train").images.shape[1:] == (3, 4, 4)
    monkeypatch.setitem(DATASETS, "tiny", replace(sizeless, read=None))  # the pack is enough
    assert open_data(DataConfig(name="tiny", size=4), tmp_path).manifest.class_names == ("even", "odd")
    made.path.rename(tmp_path / "tiny-8-v1.2")
    with pytest.raises(UserError, match="describes 4 px and 2 classes, expected 8 px and 2 classes"):
        open_data(DataConfig(name="tiny", size=8), tmp_path)
