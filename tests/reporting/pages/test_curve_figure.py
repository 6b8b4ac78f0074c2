"""The figure over snapshots: images seen on a logarithmic axis, a line per arm, untrained weights at 0, marked crossings."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from reporting.built_curves import IMAGES, VALUES, built
from reporting.built_results import build_sweep

from umd_bench.reporting.pages.curve_figure import SURE, UNSURE, curve_figure, format_images
from umd_bench.reporting.statistics.curves import read_curves
from umd_bench.reporting.statistics.summary import summarize


def test_the_axis_is_images_seen_and_every_arm_is_a_line(tmp_path: Path) -> None:
    curves = built(tmp_path, VALUES)
    assert curves is not None
    drawn = curve_figure(summarize(tmp_path, "length"), curves)
    (axes,) = drawn.axes
    assert axes.get_xticks().tolist() == pytest.approx([math.log10(n) for n in IMAGES])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4.1k", "20.5k", "41k"]
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["umd", "mae", SURE, "raw pixels"]
    assert axes.containers[0].lines[0].get_ydata().tolist() == pytest.approx([40.33, 42.33, 43.33], abs=0.01)
    mark = next(line for line in axes.lines if line.get_label() == SURE)
    assert mark.get_xdata()[0] == pytest.approx(math.log10(curves.crossings[0].images))
    assert mark.get_ydata()[0] == pytest.approx(100 * curves.crossings[0].value)


def test_untrained_weights_are_a_hollow_mark_at_zero_images(tmp_path: Path) -> None:
    curves = built(tmp_path, VALUES, untrained=True)
    assert curves is not None
    (axes,) = curve_figure(summarize(tmp_path, "length"), curves).axes
    assert axes.get_xticklabels()[0].get_text() == "0"
    hollow = [line for line in axes.lines if line.get_markerfacecolor() == "white"]
    assert [line.get_ydata().tolist() for line in hollow] == [[pytest.approx(21)]] * 2


def test_a_crossing_of_one_seed_is_marked_as_not_sure(tmp_path: Path) -> None:
    curves = built(tmp_path, {method: values[:1] for method, values in VALUES.items()})
    assert curves is not None
    (axes,) = curve_figure(summarize(tmp_path, "length"), curves).axes
    assert [line.get_label() for line in axes.lines if line.get_label() in (SURE, UNSURE)] == [UNSURE]


def test_both_read_outs_have_a_panel_on_one_scale(tmp_path: Path) -> None:
    build_sweep(tmp_path, "length", sets=("seeds=[0, 1]", "axes.method=[umd, mae]"))
    summary = summarize(tmp_path, "length")
    curves = read_curves(summary)
    assert curves is not None
    assert [panel.column.stage for panel in curves.panels] == ["probe", "best_probe"]
    drawn = curve_figure(summary, curves)
    assert [axes.get_title(loc="left") for axes in drawn.axes] == [
        panel.column.title.removesuffix(" %") for panel in curves.panels
    ]
    assert drawn.axes[0].get_ylim() == drawn.axes[1].get_ylim()


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (384, "384"),
        (999, "999"),
        (1_000, "1k"),
        (15_360, "15.4k"),
        (600_000, "600k"),
        (999_900, "1M"),
        (1_014_683_648, "1.01G"),
    ],
)
def test_images_are_written_in_three_digits(images: int, text: str) -> None:
    assert format_images(images) == text
