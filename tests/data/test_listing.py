"""The commands on data: lists, packing, verification, and the exit codes of errors."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from data.pictures import class_folders, write
from typer.testing import CliRunner

from umd_bench.cli import app
from umd_bench.cli.packing_progress import PackingProgress
from umd_bench.config.errors import UserError
from umd_bench.data.datasets import DATASETS
from umd_bench.data.listing import bytes_of, find_packs, list_data
from umd_bench.data.packing.images import PackOptions, pack_data
from umd_bench.data.packs.writer import PackProgress


@pytest.fixture
def packs(tmp_path: Path) -> Path:
    class_folders(tmp_path / "raw", {"cat": 5, "dog": 5})
    for size in (4, 8):
        pack_data("pets", tmp_path / "raw", tmp_path / "packs", PackOptions(size=size, workers=1, licence="CC0"))
    return tmp_path / "packs"


def run(*arguments: object) -> tuple[int, str]:
    """Exit code and output of the command, run in this process; a user error is exit code 2 as in the console script."""
    try:
        result = CliRunner().invoke(app, [str(x) for x in arguments], catch_exceptions=False)
    except UserError as error:
        return 2, str(error)
    return result.exit_code, result.output


def test_every_known_data_set_is_listed_and_then_the_users_own(packs: Path) -> None:
    found = {listing.name: listing for listing in list_data(packs)}
    assert list(found) == [*DATASETS, "pets"]
    assert found["imagenet"].images == {"train": 1_268_355, "validation": 12_812, "test": 50_000}
    assert not found["imagenet"].packs
    assert found["digits"].images == {"train": 1047, "validation": 250, "test": 500}
    assert found["digits"].division == found["imagenet"].division == ""
    assert found["cifar10"].division == "10% of train becomes validation"
    assert found["uc_merced"].division == "20% becomes test, 10% of the rest validation"
    own = found["pets"]
    assert (own.classes, own.licence, own.own) == (2, "CC0", True)
    assert [packed.manifest.size for packed in own.packs] == [4, 8]
    assert bytes_of(own.packs[0]) > 10 * 4 * 4 * 3


def test_the_table_shows_the_folder_and_the_size_of_each_pack(packs: Path) -> None:
    code, shown = run("data", "list", "--data-root", packs)
    assert code == 0
    assert "pets-4-v2.2" in shown
    assert "1,268,355 train" in shown
    assert f"packs lie in {packs}" in shown


def test_the_counts_of_a_data_set_are_those_of_its_pack_and_an_earlier_versions_pack_is_marked(
    packs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = packs / "pets-8-v2.2" / "manifest.json"
    for name, version in (("uc_merced", 2), ("food101", 1)):
        folder = packs / f"{name}-8-v{version}.2"
        folder.mkdir()
        facts = json.loads(manifest.read_text()) | {"name": name, "version": version}
        (folder / "manifest.json").write_text(json.dumps(facts))
    found = {listing.name: listing for listing in list_data(packs)}
    assert (found["uc_merced"].images, found["uc_merced"].division) == ({"train": 6, "validation": 2, "test": 2}, "")
    assert found["food101"].images == {"train": 75_750, "test": 25_250}
    monkeypatch.setenv("COLUMNS", "200")
    _, shown = run("data", "list", "--data-root", packs)
    assert "food101-8-v1.2 (earlier version)" in shown
    assert shown.count("(earlier version)") == 1


def test_the_counts_of_an_own_data_set_are_those_of_its_newest_version(packs: Path) -> None:
    older = packs / "pets-8-v2.2"  # sorts after pets-4-v2.2
    manifest = json.loads((older / "manifest.json").read_text())
    (older / "manifest.json").write_text(json.dumps(manifest | {"version": 1, "licence": "an older one"}))
    older.rename(packs / "pets-8-v1.2")
    (own,) = (listing for listing in list_data(packs) if listing.own)
    assert own.licence == "CC0"


def test_a_pack_is_verified_by_name_by_folder_or_with_all_others(packs: Path) -> None:
    assert len(find_packs(None, packs, None)) == len(find_packs("pets", packs, None)) == 2
    assert [x.path.name for x in find_packs("pets", packs, 8)] == ["pets-8-v2.2"]
    assert find_packs(str(packs / "pets-8-v2.2"), Path("elsewhere"), None)[0].manifest.size == 8
    for which in (["pets"], [], [packs / "pets-8-v2.2"]):
        code, shown = run("data", "verify", *which, "--data-root", packs)
        assert code == 0
        assert "pets-8-v2.2: every file agrees with its checksum" in shown


def test_verify_names_the_first_bad_file(packs: Path) -> None:
    path = packs / "pets-8-v2.2" / "train-images-00000.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    code, shown = run("data", "verify", "--data-root", packs)
    assert code == 2
    assert f"{path} has changed since it was packed" in shown
    assert f"remove the folder {path.parent} to have it packed again" in shown


@pytest.mark.parametrize(
    ("which", "message"),
    [
        (["cats"], "holds no pack of 'cats': expected one of pets"),
        (["pets", "--size", "16"], "holds no pack of 'pets' at 16 px: expected one of pets"),
    ],
)
def test_verifying_a_data_set_without_a_pack_is_an_error(which: list[str], message: str, packs: Path) -> None:
    code, shown = run("data", "verify", *which, "--data-root", packs)
    assert code == 2
    assert message in shown
    empty = packs.parent / "none"
    assert run("data", "verify", "--data-root", empty) == (2, f"{empty} holds no pack: `umd-bench data pack` makes one")


def test_data_pack_prints_the_counts_and_the_folder(tmp_path: Path) -> None:
    class_folders(tmp_path / "raw", {"cat": 5, "dog": 5})
    write(tmp_path / "raw" / "cat" / "cat_0.jpg", b"broken")
    arguments = ["data", "pack", "pets", "--root", tmp_path / "raw", "--size", 8, "--out", tmp_path / "packs", "--workers", 1]
    code, shown = run(*arguments)
    assert code == 2
    assert "cat/cat_0.jpg cannot be read (it is no image in a format that Pillow knows)" in shown
    code, shown = run(*arguments, "--on-corrupt", "skip")
    assert code == 0
    assert "pets: 6 train, 2 validation, 2 test, 2 classes" in shown
    assert f"1 of 10 images could not be read: {tmp_path}/packs/pets-8-v2.2/skipped.txt" in shown
    code, shown = run(*arguments)
    assert code == 0
    assert "is packed already" in shown


def test_a_mistake_is_one_line_and_exit_code_two(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-c",
        "from umd_bench.cli import main; main()",
        "data",
        "pack",
        "pets",
        "--size",
        "8",
        "--out",
        str(tmp_path / "packs"),
    ]
    done = subprocess.run([*command, "--root", str(tmp_path / "gone")], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("umd-bench: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "packs").exists()


def test_the_pace_counts_only_images_of_this_packing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter([0.0, 10.0, 50.0])
    monkeypatch.setattr("umd_bench.cli.packing_progress.time.monotonic", lambda: next(now))
    with PackingProgress("pets") as shown:
        shown.update(PackProgress(done=1000, total=5000, resumed=1000, skipped=0))
        shown.update(PackProgress(done=3000, total=5000, resumed=1000, skipped=2))
    output = capsys.readouterr().out
    assert "pets: 1,000 of 5,000 images are there from an earlier packing" in output
    assert "pets: 3,000 of 5,000 images, 50 images/s, 0:40 left, 2 left out" in output
