"""The figure of a summary: its panels, axes and curves, and files without a date."""

from __future__ import annotations

import re
import struct
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest
from reporting.built_results import TWO_ARMS, build_sweep

from umd_bench.config.sweep.resolve import Trial
from umd_bench.reporting.pages.figure_style import render
from umd_bench.reporting.pages.summary_figure import summary_figure
from umd_bench.reporting.statistics.summary import summarize


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    build_sweep(folder)
    build_sweep(folder, "methods")
    return folder


def test_the_figure_has_a_panel_of_probes_and_a_panel_of_samples(root: Path) -> None:
    drawn = summary_figure(summarize(root, "mask_ratio"))
    assert isinstance(drawn, matplotlib.figure.Figure)
    probe, samples = drawn.axes
    assert probe.get_ylabel() == "accuracy, % (higher is better)"
    assert "lower is better" in samples.get_ylabel()
    assert [label.get_text() for label in probe.get_xticklabels()] == ["0", "0.125", "0.25", "0.375", "0.5", "0.75"]
    assert probe.get_xticks().tolist() == [0, 0.125, 0.25, 0.375, 0.5, 0.75]
    assert samples.get_ylim()[0] == 0
    names = {text.get_text() for axes in (probe, samples) for text in axes.get_legend().get_texts()}
    assert {"probe 10-shot", "fine-tuned probe 100-shot", "raw pixels 10-shot", "fd_digits_cnn", "real images"} <= names


def test_numbers_over_a_wide_range_have_a_logarithmic_axis(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes={"stages.pretrain.optim.lr_per_256": [1e-3, 1e-2, 1e-1]})
    drawn = summary_figure(summarize(tmp_path, "mask_ratio"))
    assert drawn is not None
    assert drawn.axes[0].get_xticks().tolist() == pytest.approx([-3, -2, -1])
    assert [label.get_text() for label in drawn.axes[0].get_xticklabels()] == ["0.001", "0.01", "0.1"]
    assert drawn.axes[0].get_xlabel() == "lr_per_256 (logarithmic)"


def test_names_on_the_axis_are_not_drawn_to_scale_nor_joined(root: Path) -> None:
    drawn = summary_figure(summarize(root, "methods"))
    assert drawn is not None
    axes = drawn.axes[1]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["umd", "mae", "dit", "maskdit"]
    assert all(container.lines[0].get_linestyle() == "None" for container in axes.containers)


def test_a_second_axis_becomes_series(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes={**TWO_ARMS, "noise.schedule": ["linear", "cosine"]}, sets=("seeds=[0]",))
    drawn = summary_figure(summarize(tmp_path, "mask_ratio"))
    assert drawn is not None
    names = [text.get_text() for text in drawn.axes[1].get_legend().get_texts()]
    assert names[:2] == ["fd_digits_cnn, schedule linear", "fd_digits_cnn, schedule cosine"]


def test_if_not_all_accuracies_fit_each_stage_shows_the_one_with_the_most_shots(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes={**TWO_ARMS, "noise.schedule": ["linear", "cosine"]}, sets=("seeds=[0]",))
    drawn = summary_figure(summarize(tmp_path, "mask_ratio"))
    assert drawn is not None
    names = [text.get_text() for text in drawn.axes[0].get_legend().get_texts()]
    assert {name.partition("-shot")[0].rpartition(" ")[2] for name in names} == {"100"}


def test_untrained_weights_are_marks_at_each_arm_that_tell_the_numbers_of_shots_apart(tmp_path: Path) -> None:
    def edit(trial: Trial, name: str, result: dict[str, Any]) -> None:
        if name == "probe":
            result["metrics"] |= {f"untrained_acc_{k}shot": 0.1 for k in (10, 100)}

    build_sweep(tmp_path, axes=TWO_ARMS, edit=edit)
    drawn = summary_figure(summarize(tmp_path, "mask_ratio"))
    assert drawn is not None
    marks = {line.get_label(): line for line in drawn.axes[0].get_lines() if str(line.get_label()).startswith("untrained")}
    assert [*marks] == ["untrained weights 10-shot", "untrained weights 100-shot"]
    assert {len(line.get_xdata()) for line in marks.values()} == {2}
    assert {line.get_linestyle() for line in marks.values()} == {"None"}
    assert len({len(line.get_marker().vertices) for line in marks.values()}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["png", "pdf", "svg"])
def test_figure_files_hold_no_date(root: Path, kind: str) -> None:
    drawn = summary_figure(summarize(root, "methods"))
    assert drawn is not None
    data = render(drawn, kind)
    assert not re.search(rb"CreationDate|ModDate|tEXtSoftware|dc:date|matplotlib v", data)
    if kind == "png":
        width, height = struct.unpack(">II", data[16:24])
        assert width > 1_200
        assert height > 500
