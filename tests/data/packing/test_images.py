"""Packs do not depend on the number of processes, and a broken picture is always reported."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from data.pictures import class_folders, jpeg, write

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.trial.data import DataConfig
from umd_bench.data.datasets import data_facts
from umd_bench.data.open_data import open_data
from umd_bench.data.packing import decoder
from umd_bench.data.packing.images import PackOptions, pack_data
from umd_bench.data.packs import writer
from umd_bench.data.packs.pack import Pack, verify
from umd_bench.data.readers.pictures import decode


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    class_folders(tmp_path / "raw", {"cat": 10, "dog": 15})
    return tmp_path / "raw"


def options(**fields: object) -> PackOptions:
    return PackOptions(**({"size": 8, "workers": 1} | fields))  # type: ignore[arg-type]


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_a_pack_has_the_decoded_pictures(raw: Path, tmp_path: Path) -> None:
    packed = pack_data("pets", raw, tmp_path, options())
    verify(packed)
    assert packed.path == tmp_path / "pets-8-v2.2"
    assert packed.manifest.class_names == ("cat", "dog")
    assert packed.manifest.counts == {"train": 18, "validation": 2, "test": 5}
    assert packed.manifest.options is not None
    assert packed.manifest.options["resize"] == "antialiased"
    everything = {decode(jpeg(i), 8, "antialiased").tobytes(): int(i >= 10) for i in range(25)}  # type: ignore[union-attr]
    found = {
        image.tobytes(): label
        for split in packed.manifest.counts
        for image, label in zip(packed.split(split).images, packed.split(split).labels.tolist(), strict=True)
    }
    assert found == everything


@pytest.mark.slow
def test_packs_of_one_and_of_three_processes_are_equal_to_the_byte(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "_CHUNK", 2)
    alone = pack_data("pets", raw, tmp_path / "one", options())
    together = pack_data("pets", raw, tmp_path / "three", options(workers=3))
    assert contents(alone.path) == contents(together.path)


def test_another_resize_gives_another_digest(raw: Path, tmp_path: Path) -> None:
    digests = {
        pack_data("pets", raw, tmp_path / resize, options(resize=resize)).manifest.digest
        for resize in ("antialiased", "adm", "aliased")
    }
    assert len(digests) == 3
    with pytest.raises(UserError, match="is packed with resize 'adm', not 'aliased': remove it"):
        pack_data("pets", raw, tmp_path / "adm", options(resize="aliased"))


def test_a_broken_picture_stops_the_packing_with_its_path(raw: Path, tmp_path: Path) -> None:
    write(raw / "dog" / "dog_3.jpg", jpeg(3)[:-150])
    with pytest.raises(UserError, match=r"dog/dog_3\.jpg cannot be read \(.*truncated.*\): repair or.*--on-corrupt skip"):
        pack_data("pets", raw, tmp_path / "out", options())
    assert not list((tmp_path / "out").iterdir())


def test_a_broken_picture_that_is_skipped_is_listed(raw: Path, tmp_path: Path) -> None:
    write(raw / "dog" / "dog_3.jpg", jpeg(3)[:-150])
    write(raw / "cat" / "cat_0.jpg", b"")
    packed = pack_data("pets", raw, tmp_path / "out", options(on_corrupt="skip", workers=2))
    verify(packed)
    assert sum(packed.manifest.counts.values()) == 23
    assert packed.manifest.notes["skipped"] == "2 of 25 images could not be read: skipped.txt"
    lines = (packed.path / "skipped.txt").read_text().splitlines()
    reasons = dict(line.split(": ", 2)[1:] for line in lines)
    assert reasons["cat/cat_0.jpg"] == "it is empty"
    assert "truncated" in reasons["dog/dog_3.jpg"]


def test_a_packing_that_a_broken_picture_stopped_continues_if_such_pictures_are_skipped(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 4 * 3 * 8 * 8)
    monkeypatch.setattr(writer, "_READ_ROWS", 4)
    write(raw / "dog" / "dog_9.jpg", b"broken")
    whole = pack_data("pets", raw, tmp_path / "whole", options(on_corrupt="skip"))
    with pytest.raises(UserError):
        pack_data("pets", raw, tmp_path / "out", options())
    seen: list[writer.PackProgress] = []
    resumed = pack_data("pets", raw, tmp_path / "out", options(on_corrupt="skip"), progress=seen.append)
    assert seen[0].resumed > 0
    assert contents(resumed.path) == contents(whole.path)


def test_an_added_picture_starts_another_packing(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "SHARD_BYTES", 4 * 3 * 8 * 8)
    write(raw / "dog" / "dog_9.jpg", b"broken")
    with pytest.raises(UserError):
        pack_data("pets", raw, tmp_path / "out", options())
    write(raw / "dog" / "dog_9.jpg", jpeg(77))
    seen: list[writer.PackProgress] = []
    pack_data("pets", raw, tmp_path / "out", options(), progress=seen.append)
    assert seen[0].resumed == 0


PACKER = """
import sys
from pathlib import Path
from umd_bench.data.packs import writer
from umd_bench.data.packing.images import PackOptions, pack_data
writer.SHARD_BYTES, writer._READ_ROWS = 4 * 3 * 8 * 8, 4
def show(progress):
    print(progress.done, flush=True)
if __name__ == "__main__":
    pack_data("pets", Path(sys.argv[1]), Path(sys.argv[2]), PackOptions(size=8, workers=2), progress=show)
"""


@pytest.mark.slow
def test_a_killed_packing_leaves_no_process_and_continues_to_the_same_bytes(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "packer.py").write_text(PACKER)
    command = [sys.executable, str(tmp_path / "packer.py"), str(raw), str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as packer:
        assert packer.stdout is not None
        while int(packer.stdout.readline()) < 8:
            pass
        children = Path(f"/proc/{packer.pid}/task/{packer.pid}/children")
        decoders = children.read_text().split() if children.exists() else []
        packer.send_signal(signal.SIGKILL)
    assert not (tmp_path / "out" / "pets-8-v2.2").exists()
    for _ in range(100):
        if not any(os.path.exists(f"/proc/{pid}") for pid in decoders):  # noqa: PTH110 - a process, not a path
            break
        time.sleep(0.1)
    else:
        pytest.fail(f"decoding processes outlived their parent: {decoders}")
    monkeypatch.setattr(writer, "SHARD_BYTES", 4 * 3 * 8 * 8)
    monkeypatch.setattr(writer, "_READ_ROWS", 4)
    whole = pack_data("pets", raw, tmp_path / "whole", options())
    seen: list[writer.PackProgress] = []
    resumed = pack_data("pets", raw, tmp_path / "out", options(), progress=seen.append)
    assert seen[0].resumed >= 4
    assert contents(resumed.path) == contents(whole.path)


def test_a_full_disk_is_reported_before_anything_is_decoded(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "free_bytes", lambda _: 3 * 2**30)
    with pytest.raises(UserError, match=r"it needs 4\.\d\d GiB, and the disk has 3\.00 GiB free"):
        pack_data("pets", raw, tmp_path / "out", options(size=8000))
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("My Pets", {}, "name = 'My Pets' is not accepted: expected lower-case letters"),
        ("pets", {"size": None}, "size = None is not accepted: images of pets have no size of their own"),
        ("pets", {"resize": "nearest"}, "resize = 'nearest' is not accepted: expected one of adm, aliased, antialiased"),
        ("pets", {"on_corrupt": "ignore"}, "on_corrupt = 'ignore' is not accepted: expected one of refuse, skip"),
        ("pets", {"test_share": 1.5}, "test_share = 1.5 is not accepted: expected a share between 0 and 1"),
        ("pets", {"splits": ("train", "dev")}, "splits = 'train,dev' is not accepted: expected one of test, train, validation"),
        (
            "pets",
            {"splits": ("train", "test")},
            "splits = 'train,test' is not accepted: every pack has train, validation, test, and validation is missing",
        ),
        ("pets", {"label_column": "label"}, "label_column = 'label' is not accepted: .* is not a Hugging Face data set"),
        ("cifar10", {"licence": "mine"}, "licence = 'mine' is not accepted: cifar10 has its own licence"),
        ("digits", {"resize": "adm"}, "resize = 'adm' is not accepted: the built-in data set digits has no such option"),
        ("uc_merced", {}, "uc_merced has 21 classes, and the files hold 2: pack a part of it under a name of your own"),
    ],
)
def test_an_invalid_option_gives_a_one_line_error_and_leaves_no_files(
    name: str, fields: dict[str, object], message: str, raw: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=message):
        pack_data(name, raw, tmp_path / "out", options(**({"workers": None} if name == "digits" else {}) | fields))
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_the_errors_for_a_missing_folder_and_an_unknown_name_say_how_to_fix_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere is not a folder: expected the folder that holds the files of pets"):
        pack_data("pets", tmp_path / "nowhere", tmp_path, options())
    with pytest.raises(UserError, match=r"imagenet is packed from its original files: give their folder with --root DIR"):
        pack_data("imagenet", None, tmp_path, options())
    with pytest.raises(FieldError, match=r"data\.name = 'pets' .* uc_merced; `umd-bench data pack NAME --root DIR --size N`"):
        pack_data("pets", None, tmp_path, options())


def test_a_users_own_data_set_is_known_by_its_pack(raw: Path, tmp_path: Path) -> None:
    packed = pack_data("pets", raw, tmp_path / "out", options())
    own = DataConfig(name="pets", size=8)
    facts = data_facts(own, root=tmp_path / "out")
    assert (facts.name, facts.size, facts.channels, facts.classes) == ("pets", 8, 3, 2)
    opened = open_data(own, tmp_path / "out")
    assert opened == Pack(packed.path, packed.manifest)
    assert np.array_equal(opened.split("test").labels, packed.split("test").labels)
    with pytest.raises(FieldError, match=r"data\.size = 16 is not accepted: expected one of 8, at which pets is packed below"):
        data_facts(DataConfig(name="pets", size=16), root=tmp_path / "out")
    with pytest.raises(FieldError, match=r"data\.name = 'pets' is not accepted"):
        data_facts(own, root=tmp_path)
