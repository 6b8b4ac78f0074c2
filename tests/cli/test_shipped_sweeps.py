"""Shipped sweeps are found by name and described by their own text; the error for an unknown name lists the known ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from umd_bench.cli import app
from umd_bench.cli.shipped_sweeps import describe, find_sweep_file, folder, names
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_sweep

SWEEPS = Path(__file__).parents[2] / "sweeps"


def test_the_names_of_shipped_sweeps_are_the_names_of_the_repositorys_files() -> None:
    assert names() == sorted(path.stem for path in SWEEPS.glob("*.yaml"))
    assert {"mask_ratio", "search_corruption", "transfer"} <= set(names())


@pytest.mark.parametrize("name", names())
def test_a_shipped_file_describes_itself_and_loads(name: str) -> None:
    one = describe(name)
    config = load_sweep(find_sweep_file(name)).config
    assert (config.name, config.question, config.tier) == (name, one.question, one.tier)
    assert one.question.endswith("?")
    assert "minutes" in one.cost or "hours are unknown" in one.cost
    assert not any(field in one.cost for field in ("Run:", "From:", "#"))
    assert f"# Run:   umd-bench sweep {name}\n" in find_sweep_file(name).read_text()


def test_an_existing_file_wins_over_a_shipped_sweep_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "methods").mkdir()
    (tmp_path / "mask_ratio").write_text("name: mine\n")
    assert find_sweep_file("mask_ratio") == Path("mask_ratio")
    assert find_sweep_file("methods") == folder() / "methods.yaml", "a folder is no file"
    assert find_sweep_file("r_t0") == folder() / "r_t0.yaml"


@pytest.mark.parametrize("given", ["nowhere.yaml", "./mask_ratio", "sweeps/nowhere", "/nowhere"])
def test_an_argument_with_a_suffix_or_a_slash_is_a_path(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_sweep_file(given) == Path(given)


@pytest.mark.parametrize("verb", ["sweep", "plan"])
def test_an_unknown_name_gives_a_one_line_error_with_the_known_names(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"'mask_ration' is not accepted: did you mean mask_ratio\?") as raised:
        app([verb, "mask_ration"], standalone_mode=False)
    assert f"expected the path of a YAML file, or the name of a shipped sweep: {', '.join(names())}" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_the_list_shows_every_sweep_with_question_tier_and_cost(capsys: pytest.CaptureFixture[str]) -> None:
    app(["sweep", "--list"], standalone_mode=False)
    text = " ".join(capsys.readouterr().out.split())
    for name in names():
        assert f" {name} {describe(name).tier} " in text
    assert "Which mask ratio" in text
    assert "6 ratios x 3 seeds, 108 stages" in text
    assert str(folder()) in text
