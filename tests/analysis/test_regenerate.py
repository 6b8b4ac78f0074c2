"""`python -m analysis` reads run directories alone, names the command for a missing sweep, and shows numbers as published."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from reporting.built_results import TWO_ARMS, build_sweep

from analysis.__main__ import main
from analysis.items import ITEMS
from analysis.published import FOLDER, load
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.reporting.statistics.summary import summarize

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# As the official README publishes them: (100-shot %, FID, IS)
PUBLISHED = {
    ("imagenet64", "umd"): (31.8, 19.8, 46.9),
    ("imagenet64", "mae"): (36.6, 26.8, 18.5),
    ("imagenet64", "dit"): (25.6, 18.9, 46.9),
    ("imagenet64", "maskdit"): (26.3, 19.0, 43.4),
    ("imagenet256", "umd"): (54.4, 3.96, 212.6),
    ("imagenet256", "mae"): (51.1, None, None),
    ("imagenet256", "dit_scratch"): (None, 4.31, 274.5),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with two of the paper's sweeps, one of a user's own, and the pages made from them."""
    root = tmp_path_factory.mktemp("results")
    build_sweep(root, "methods", sets=("seeds=[0, 1]",))
    build_sweep(root, axes=TWO_ARMS, sets=("seeds=[0]",))
    build_sweep(root, axes=TWO_ARMS, sets=("seeds=[0]", "name=own", "stages=[probe]"))
    assert main(["--results", str(root)]) == 0
    return root


def test_recorded_sweeps_are_made_and_the_others_name_their_command(
    made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["--results", str(made), "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"mask_ratio: {tmp_path / 'mask_ratio'}"
    assert lines[1] == f"r_t0: not made: {made} holds no results of it; `umd-bench sweep r_t0` makes them"
    made_here = [line for line in lines if ": not made: " not in line]
    assert made_here[1:] == [f"methods: {tmp_path / 'methods'}", f"own: {tmp_path / 'own'}", f"index: {tmp_path / 'README.md'}"]
    assert len(lines) - len(made_here) == len(ITEMS) - 2
    assert {path.name for path in tmp_path.iterdir()} == {"mask_ratio", "methods", "own", "README.md"}


def test_an_empty_results_folder_gives_a_one_line_error_and_exit_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        f"analysis: nothing in {tmp_path} to make a table of; expected the results folder of a sweep\n"
    )
    assert list(tmp_path.iterdir()) == []


def test_the_module_makes_the_same_bytes_again(made: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "analysis", "--results", str(made), "--out", str(tmp_path)], cwd=ROOT, check=True)
    for folder in ("methods", "mask_ratio", "own", ""):
        for path in (tmp_path / folder).iterdir():
            assert path.is_dir() or path.read_bytes() == (made / "analysis" / folder / path.name).read_bytes(), path


def test_the_index_links_only_to_existing_files(made: Path) -> None:
    text = (made / "analysis/README.md").read_text()
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 20
    assert all((made / "analysis" / link).is_file() for link in links)
    assert "Not made: " in text


def test_a_sweep_that_cannot_be_read_does_not_stop_the_others(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS, sets=("seeds=[0]", "stages=[probe]"))
    (tmp_path / "sweeps/broken").mkdir()
    (tmp_path / "sweeps/broken/sweep.yaml").write_text("name: [")
    assert main(["--results", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "broken: not made: " in out
    assert f"mask_ratio: {tmp_path / 'analysis/mask_ratio'}" in out


def test_a_sweep_without_any_result_is_not_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trials = ("mask_ratio=0.25,seed=0", "mask_ratio=0.5,seed=0")
    stages = ("pretrain", "probe", "finetune", "finetune_probe", "generate")
    build_sweep(tmp_path, axes=TWO_ARMS, sets=("seeds=[0]",), skipped=dict.fromkeys(trials, stages))
    assert main(["--results", str(tmp_path)]) == 2
    assert "none of its stages has a result yet" in capsys.readouterr().out


@pytest.mark.parametrize("item", ITEMS, ids=lambda item: item.sweep)
def test_every_item_has_its_sweep_and_its_axis(item: object) -> None:
    assert hasattr(item, "sweep")
    sweep = load_sweep(ROOT / f"sweeps/{item.sweep}.yaml")
    assert sweep.config.name == item.sweep
    assert item.x in sweep.config.axes
    assert "arXiv " in item.source


def test_every_item_shows_probe_and_samples(made: Path) -> None:
    item = next(item for item in ITEMS if item.sweep == "methods")
    shown = [column.header for column in summarize(made, "methods", x=item.x, metrics=item.metrics).columns]
    assert shown == [
        "probe 10-shot % ↑",
        "probe 100-shot % ↑",
        "fine-tuned probe 10-shot % ↑",
        "fine-tuned probe 100-shot % ↑",
        "fd_digits_cnn ↓",
        "fd_inf_digits_cnn ↓",
        "is_digits_cnn ↑",
        "accuracy_digits_cnn % ↑",
    ]


@pytest.mark.parametrize("name", ["imagenet64", "imagenet256"])
def test_published_numbers_equal_the_publication_and_are_marked_as_not_verified(name: str) -> None:
    table = load(name)
    numbers = {(name, row.method): tuple(row.numbers.get(m) for m in ("acc_100shot", "fid", "is")) for row in table.rows}
    assert numbers == {key: value for key, value in PUBLISHED.items() if key[0] == name}
    assert "not verified" in table.statement
    assert "3d4555b" in table.source


def test_every_published_file_is_shown_by_some_item() -> None:
    assert {path.stem for path in FOLDER.glob("*.yaml")} == {name for item in ITEMS for name in item.published}


def test_published_numbers_are_on_their_own_page_and_in_no_table_of_results(made: Path) -> None:
    text = (made / "analysis/methods/published.md").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| maskdit"))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[:5] == ["maskdit", "MaskDiT-B/4", "26.3", "19.0", "43.4"]
    assert re.fullmatch(r"\d\d\.\d ± \d+\.\d", cells[5])
    assert "not verified by this project" in text
    assert "compare the order of the methods within a column" in text
    for table in ("table.md", "table.csv", "long.csv"):
        assert "MaskDiT-B/4" not in (made / "analysis/methods" / table).read_text()


def test_published_numbers_repeat_for_every_arm_of_their_method(tmp_path: Path) -> None:
    axes = {"method": ["umd", "dit_scratch"], "stages.generate.cfg_scale": [1.5, 4.0]}
    build_sweep(tmp_path, "latent", axes=axes, sets=("seeds=[0, 1]", "tier=digits"))
    assert main(["--results", str(tmp_path)]) == 0
    lines = (tmp_path / "analysis/latent/published.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")][:6] for line in lines if line.startswith("| ")]
    assert rows[0][:3] == ["method", "published model", "published 100-shot % ↑"]
    assert rows[0][5] == "here: stages.generate.cfg_scale"
    assert [(row[0], row[3], row[5]) for row in rows[2:]] == [
        ("umd", "3.96", "1.5"),
        ("umd", "3.96", "4"),
        ("mae", "–", "–"),
        ("dit_scratch", "4.31", "1.5"),
        ("dit_scratch", "4.31", "4"),
    ]


def test_the_index_warns_of_each_sweep_at_a_tier_without_a_passed_check(made: Path) -> None:
    text = (made / "analysis/README.md").read_text()
    assert text.count("\n**Unchecked tier digits: ") + text.count("\n**Smoke tier digits: ") == 3
