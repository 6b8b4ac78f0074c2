"""A heat map shows each arm's mean in the cell of its two axis values."""

from __future__ import annotations

from pathlib import Path

import pytest
from reporting.built_results import build_sweep

from analysis.heatmap import heatmap
from analysis.items import ITEMS
from analysis.regenerate import regenerate
from umd_bench.config.errors import UserError
from umd_bench.reporting.notation.formatting import format_mean
from umd_bench.reporting.statistics.summary import Summary, summarize

ITEM = next(item for item in ITEMS if item.sweep == "layers")
AXES = {"stages.probe.t": [0, 400, 51], "stages.probe.block": [4, 1]}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    build_sweep(folder, "layers", axes=AXES, sets=("seeds=[0, 1]",))
    return folder


@pytest.fixture(scope="module")
def summary(root: Path) -> Summary:
    return summarize(root, "layers", x=ITEM.x, metrics=ITEM.metrics)


def test_every_cell_shows_the_mean_of_its_arm(summary: Summary) -> None:
    assert ITEM.map_y is not None
    drawn = heatmap(summary, ITEM.map_y)
    assert drawn is not None
    assert [axes.get_title(loc="left") for axes in drawn.axes] == ["probe 10-shot %", "probe 100-shot %"]
    for axes, column in zip(drawn.axes, summary.columns, strict=True):
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["0", "51", "400"]
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["1", "4"]
        cells = {text.get_position(): text.get_text() for text in axes.texts}
        assert len(cells) == 6
        for row in summary.arms:
            place = [0, 51, 400].index(row.axes["t"]), [1, 4].index(row.axes["block"])
            assert cells[place] == format_mean(row.estimates[column].mean, None, percent=True)


def test_a_cell_without_a_result_is_empty(tmp_path: Path) -> None:
    build_sweep(tmp_path, "layers", axes=AXES, sets=("seeds=[0]",), skipped={"t=51,block=1,seed=0": ("probe",)})
    drawn = heatmap(summarize(tmp_path, "layers", x=ITEM.x), "stages.probe.block")
    assert drawn is not None
    assert [text.get_position() for text in drawn.axes[0].texts if not text.get_text()] == [(1, 0)]


@pytest.mark.parametrize("y", ["stages.probe.t", "stages.probe.pool"])
def test_the_second_axis_must_be_another_axis_of_the_sweep(summary: Summary, y: str) -> None:
    with pytest.raises(UserError, match=r"is not another axis: expected one of stages\.probe\.t, stages\.probe\.block"):
        heatmap(summary, y)


@pytest.mark.slow
def test_the_map_is_made_with_the_tables(root: Path, tmp_path: Path) -> None:
    made = [outcome for outcome in regenerate(root, tmp_path) if outcome.folder]
    assert [outcome.name for outcome in made] == ["layers"]
    assert (tmp_path / "layers" / "map.png").read_bytes().startswith(b"\x89PNG")
    assert "layers/map.png" in (tmp_path / "README.md").read_text()
