"""The report's files: written the same each time, readable as what they claim to be, and printed without losing a cell."""

from __future__ import annotations

import io
import re
import struct
import subprocess
import sys
from pathlib import Path

import matplotlib.figure
import pandas as pd
import pytest
import rich.console
from reporting.built_results import TWO_ARMS, build_sweep

from umd_bench.reporting.frames.sweep_frames import cost_frame
from umd_bench.reporting.pages import summary_table, table_formats
from umd_bench.reporting.pages.cost_tables import cost_summary
from umd_bench.reporting.pages.figure_style import render
from umd_bench.reporting.pages.summary_figure import summary_figure
from umd_bench.reporting.report import print_report, write_report
from umd_bench.reporting.statistics.summary import summarize
from umd_bench.store import RunDir, read_sweep


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    build_sweep(folder)
    build_sweep(folder, "methods")
    return folder


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.mark.slow
def test_a_report_written_again_by_another_process_has_the_same_bytes(root: Path, tmp_path: Path) -> None:
    write_report(summarize(root, "methods"), root, out=tmp_path / "here")
    code = "import sys; from pathlib import Path; from umd_bench.reporting.report import write_report; "
    code += "from umd_bench.reporting.statistics.summary import summarize; "
    code += "r, out = map(Path, sys.argv[1:]); write_report(summarize(r, 'methods'), r, out=out)"
    subprocess.run([sys.executable, "-c", code, str(root), str(tmp_path / "there")], check=True, env={"PYTHONHASHSEED": "7"})
    here, there = _bytes(tmp_path / "here"), _bytes(tmp_path / "there")
    assert len(here) == 10
    assert {name for name in here if here[name] != there[name]} == set()


def test_a_report_reads_each_run_directory_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    config = RunDir.config
    monkeypatch.setattr(RunDir, "config", lambda run: (read.append(run.key), config(run))[1])
    write_report(summarize(root, "methods"), root, out=tmp_path)
    assert len(read) == len(set(read)) == len({key for t in read_sweep(root, "methods").trials for key in t.stages.values()})


def test_a_report_of_nothing_yet_is_a_table_of_dashes(tmp_path: Path) -> None:
    stages = ("pretrain", "probe", "finetune", "finetune_probe", "generate")
    skipped = {f"schedule={s},seed={i}": stages for s in ("linear", "cosine") for i in range(3)}
    build_sweep(tmp_path, "noise_schedule", sets=("axes.noise.schedule=[linear, cosine]",), skipped=skipped)
    paths = write_report(summarize(tmp_path, "noise_schedule"), tmp_path)
    assert paths.figure_png is None
    assert not (tmp_path / "sweeps/noise_schedule/figure.png").exists()
    text = paths.table_md.read_text()
    assert "| linear" in text
    assert (
        "Missing: pretrain, probe, finetune, finetune_probe, generate of schedule=linear,seed=0; schedule=linear,seed=1" in text
    )


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


def test_html_escapes_what_a_sweep_is_called(root: Path) -> None:
    text = summary_table.html_page(summarize(root, "mask_ratio"), "<b>&", "figure.png")
    assert "<title>&lt;b&gt;&amp;</title>" in text
    assert '<img src="figure.png"' in text
    assert text.count("<html") == text.count("</html>") == 1


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
        assert {"accuracy_", "fd_inf_", "train", "mask_ratio"} <= {*words}
    if width == 120:  # narrower ones fold their cells over lines
        assert digits == re.sub(r"[^0-9]", "", next(line for line in text.splitlines() if line.strip().startswith("0 ")))


def test_printing_a_report_says_where_it_is_and_what_is_missing(root: Path) -> None:
    out = io.StringIO()
    print_report(root, "methods", rich.console.Console(width=120, file=out))
    text = out.getvalue()
    assert "maskdit" in text
    assert "95% Student t interval" in text
    assert f"{root}/sweeps/methods: table.md" in text


def test_a_narrow_terminal_shows_probes_and_samples_one_below_the_other(root: Path) -> None:
    out = io.StringIO()
    print_report(root, "methods", rich.console.Console(width=80, file=out, force_terminal=True, color_system=None))
    lines = out.getvalue().splitlines()
    first = out.getvalue().partition("Differences to")[0].splitlines()
    rows = [line.split() for line in first if line.strip().startswith("maskdit  ")]
    assert [len(row) for row in rows] == [1 + 4 * 3, 1 + 4 * 3]
    assert max(map(len, lines[:-1])) <= 80


def test_a_pipe_gets_the_whole_width(root: Path) -> None:
    out = io.StringIO()
    print_report(root, "methods", rich.console.Console(width=80, file=out))
    row = next(line for line in out.getvalue().splitlines() if line.strip().startswith("maskdit"))
    assert len(row.split()) == 1 + 8 * 3


def test_costs_of_shared_stages_are_counted_once(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes={"stages.generate.steps": [10, 25]})
    rows = cost_summary(cost_frame(tmp_path, "mask_ratio")).set_index("stage")
    assert rows["runs"].to_dict() == {"pretrain": "3", "probe": "3", "finetune": "3", "finetune_probe": "3", "generate": "6"}
    assert rows.loc["pretrain", "total seconds"] == "40.5"


def test_the_figure_has_a_panel_for_each_side_of_the_question(root: Path) -> None:
    drawn = summary_figure(summarize(root, "mask_ratio"))
    assert isinstance(drawn, matplotlib.figure.Figure)
    probe, samples = drawn.axes
    assert "higher is better" in probe.get_ylabel()
    assert "lower is better" in samples.get_ylabel()
    assert [label.get_text() for label in probe.get_xticklabels()] == ["0", "0.125", "0.25", "0.375", "0.5", "0.75"]
    assert probe.get_xticks().tolist() == [0, 0.125, 0.25, 0.375, 0.5, 0.75]
    assert samples.get_ylim()[0] == 0
    names = {text.get_text() for axes in (probe, samples) for text in axes.get_legend().get_texts()}
    assert {"probe 10-shot", "fine-tuned probe 100-shot", "raw pixels 10-shot", "fd_digits_cnn", "real train vs test"} <= names


def test_numbers_that_are_far_apart_stand_on_a_logarithmic_axis(tmp_path: Path) -> None:
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


def test_pretraining_is_costed_arm_by_arm_with_what_is_shared_once(tmp_path: Path) -> None:
    axes = {"method": ["umd", "mae"], "stages.generate.cfg_scale": [1.5, 3.0]}
    build_sweep(tmp_path, axes=axes, sets=("seeds=[0, 1]",))
    text = write_report(summarize(tmp_path, "mask_ratio"), tmp_path).cost_md.read_text()
    table = [line for line in text.partition("arm by arm")[2].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert rows[0] == ["method", "seeds", "images", "MFLOP/image", "PFLOP", "images/s", "device-hours", "device"]
    expected = ["2", "40,960", "10", "0.0004096", "3,200", "0.00361", "A processor"]  # (12.5 + 13.5) / 2 s an hour
    assert rows[2:] == [["umd", *expected], ["mae", *expected]]


def test_a_sweep_without_pretraining_results_has_no_such_table(tmp_path: Path) -> None:
    trials = ("mask_ratio=0.25,seed=0", "mask_ratio=0.5,seed=0")
    build_sweep(tmp_path, axes=TWO_ARMS, sets=("seeds=[0]",), skipped=dict.fromkeys(trials, ("pretrain",)))
    assert "arm by arm" not in write_report(summarize(tmp_path, "mask_ratio"), tmp_path).cost_md.read_text()
