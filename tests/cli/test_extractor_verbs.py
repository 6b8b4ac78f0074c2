"""Verbs on extractors: the list, the program's only download, and mistakes, which give a one-line error and exit code 2."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import pytest
from data.grey_pack import pack_of_digits
from rich.console import Console

from umd_bench import cli
from umd_bench.cli.verbs import extractors
from umd_bench.data.packs.manifest import data_root
from umd_bench.evaluation.extractors import inception
from umd_bench.evaluation.extractors.listing import list_extractors
from umd_bench.evaluation.extractors.registry import EXTRACTORS, load_extractor
from umd_bench.evaluation.extractors.timm_models import DINOV2

pytestmark = pytest.mark.usefixtures("no_weights_of_this_machine")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    """The exit code of ``umd-bench extractor ...``."""
    monkeypatch.setattr(sys, "argv", ["umd-bench", "extractor", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("width", [80, 140])
def test_list_cuts_nothing_off_at_any_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setattr(extractors, "console", Console(width=width))
    assert run(monkeypatch, "list") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "…" not in out
    for entry in list_extractors(data_root()):
        assert {entry.name, *entry.takes.split(), *entry.licence.split()} <= {*re.split(r"[ ;]+", out)}


def test_fetch_keeps_the_published_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    mirror = tmp_path / "mirror.pth"
    mirror.write_bytes(b"weights")
    target = inception.fetched_path()
    assert run(monkeypatch, "fetch", "inception-v3-compat", "--from", mirror.as_uri()) == 2
    assert "is not the published file" in capsys.readouterr().err
    assert not list(target.parent.iterdir())
    monkeypatch.setattr(inception, "SHA256", hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setattr(inception, "ADDRESS", mirror.as_uri())
    for outcome in ("fetched", "there already:"):
        assert run(monkeypatch, "fetch", "inception-v3-compat") == 0
        assert f"{outcome} {target}" in capsys.readouterr().out.replace("\n", "")
    assert target.read_bytes() == b"weights"
    assert inception.find_weights() == b"weights"


def test_fetch_refuses_an_extractor_without_published_weights(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "fetch", "digits_cnn") == 2
    assert "weights of 'digits_cnn' cannot be fetched: expected one of inception-v3-compat" in capsys.readouterr().err


def test_list_shows_every_extractor_with_its_weights_or_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "list") == 0
    out = capsys.readouterr().out
    for entry in list_extractors(data_root()):
        assert f"\n{entry.name} " in out
    assert [entry.name for entry in list_extractors(data_root())] == [*EXTRACTORS, DINOV2]
    assert load_extractor("digits_cnn").hash[:12] in out
    assert "inception-v3-compat: no weights: name the file in $UMD_BENCH_INCEPTION, or run" in out
    assert f"{DINOV2}: no weights: name the file in $UMD_BENCH_TIMM_VIT_LARGE" in out


def test_list_shows_installed_timm_models_and_exits_with_2_for_other_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "umd_bench_weights" / "timm" / "test_vit.r160_in1k.pth"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"weights")
    (own.parent / "README.md").write_text("what these are")
    assert run(monkeypatch, "list") == 0
    out = capsys.readouterr().out
    assert "timm:test_vit" in out
    assert hashlib.sha256(b"weights").hexdigest()[:12] in out
    (tmp_path / "umd_bench_weights" / inception.FILE).write_bytes(b"others")
    assert run(monkeypatch, "list") == 2
    printed = capsys.readouterr()
    assert "faulty" in printed.out
    assert "is not the Inception-v3 that FID is defined by" in printed.err


@pytest.mark.slow
def test_train_says_how_often_the_classifier_is_right_and_where_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pack_of_digits(tmp_path)
    arguments = ("train", "mine", "--size", "8", "--epochs", "1", "--data-root", tmp_path)
    for state in ("", " is trained already"):
        assert run(monkeypatch, *arguments) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert re.search(rf"mine_cnn{state}: accuracy [\d.]+% on validation, [\d.]+% on test \(chance: 10.0%\)", out)
        assert (tmp_path / "extractors" / "mine_cnn-8.safetensors").exists()
    assert run(monkeypatch, "list", "--data-root", tmp_path) == 0
    assert "\nmine_cnn " in capsys.readouterr().out


def test_train_refuses_a_mistake_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, sentence in (
        (("train", "digits"), "digits_cnn comes with the package"),
        (("train", "nothing_cnn"), "data.name = 'nothing_cnn' is not accepted: expected one of"),
        (("train", "cifar10"), "images of cifar10 have no size of their own: expected a number of pixels"),
    ):
        assert run(monkeypatch, *arguments, "--data-root", tmp_path) == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
