"""Tables of a summary: every format is valid, escapes special characters, and loses no cell."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pandas as pd
import pytest
import rich.console
from reporting.built_results import TWO_ARMS, build_sweep

from umd_bench.reporting.pages import summary_table, table_formats
from umd_bench.reporting.statistics.summary import summarize


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    build_sweep(folder)
    return folder


def test_markdown_has_a_cell_for_every_arm_and_column(root: Path) -> None:
    summary = summarize(root, "mask_ratio")
    lines = [line for line in summary_table.markdown(summary, "A title").splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 6 + 2
    assert {line.count("|") for line in lines} == {10}
    assert re.search(r"\| 0\.375 +\| +\d\d\.\d ± \d\.\d \|", lines[5])
    assert len({len(line) for line in lines}) == 1


def test_one_seed_and_missing_seeds_are_marked_in_the_cell(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS, sets=("seeds=[0]",))
    assert re.search(r"\d\d\.\d \(n=1\)", summary_table.markdown(summarize(tmp_path, "mask_ratio"), "t"))
    build_sweep(tmp_path / "b", axes=TWO_ARMS, failed={("mask_ratio=0.5,seed=1", "probe"): "oom"})
    text = summary_table.markdown(summarize(tmp_path / "b", "mask_ratio"), "t")
    assert re.search(r"\| 0\.5 +\| +\d\d\.\d ± \d+\.\d \(n=2\)", text)


def test_csv_is_read_back_with_every_bit(root: Path) -> None:
    frame = summarize(root, "mask_ratio").frame()
    again = pd.read_csv(io.StringIO(table_formats.csv(frame)))
    column = "generate.fd_digits_cnn.mean"
    assert again[column].dropna().tolist() == frame[column].dropna().tolist()


def test_latex_escapes_names_and_holds_no_sign_that_latex_lacks(root: Path) -> None:
    text = summary_table.latex(summarize(root, "mask_ratio"), "50% of x_y")
    assert r"50\% of x\_y" in text
    assert r"fd\_digits\_cnn $\downarrow$" in text
    assert text.isascii()


def test_html_escapes_the_title(root: Path) -> None:
    text = summary_table.html_page(summarize(root, "mask_ratio"), "<b>&", "figure.png")
    assert "<title>&lt;b&gt;&amp;</title>" in text
    assert '<img src="figure.png"' in text
    assert text.count("<html") == text.count("</html>") == 1


def test_html_has_the_warning_once_and_keeps_numbers_on_one_line(root: Path) -> None:
    summary = summarize(root, "mask_ratio")
    text = summary_table.html_page(summary, "title", None)
    assert summary.warning
    assert text.count("conclude nothing") == 1  # smoke and unchecked tiers both say so
    assert "td.gt_right { white-space: nowrap; }" in text


@pytest.mark.parametrize("width", [120, 80])
def test_the_terminal_table_fits_and_loses_no_cell(root: Path, width: int) -> None:
    summary = summarize(root, "mask_ratio")
    console = rich.console.Console(width=width, file=io.StringIO(), record=True, color_system=None)
    console.print(summary_table.terminal(summary, "Title", width))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    digits = re.sub(r"[^0-9]", "", "".join(summary_table.cells(summary).iloc[0]))
    if width == 120:
        assert summary_table.min_width(summary) <= width
        words = text.split()
        assert words.count("digits_cnn") == 4, "headers are wrapped at words"
        assert {"accuracy_", "fd_inf_", "images", "mask_ratio"} <= {*words}
    if width == 120:  # narrower ones fold their cells over lines
        assert digits == re.sub(r"[^0-9]", "", next(line for line in text.splitlines() if line.strip().startswith("0 ")))
