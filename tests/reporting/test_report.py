"""Reports: the same bytes each time, one read of each run directory, and a printout that fits its terminal."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest
import rich.console
from reporting.built_results import build_sweep

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


@pytest.mark.slow
def test_a_report_reads_each_run_directory_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    config = RunDir.config
    monkeypatch.setattr(RunDir, "config", lambda run: (read.append(run.key), config(run))[1])
    write_report(summarize(root, "methods"), root, out=tmp_path)
    assert len(read) == len(set(read)) == len({key for t in read_sweep(root, "methods").trials for key in t.stages.values()})


def test_a_report_without_results_is_a_table_of_dashes(tmp_path: Path) -> None:
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


@pytest.mark.slow
def test_a_printed_report_names_its_files(root: Path) -> None:
    out = io.StringIO()
    print_report(root, "methods", rich.console.Console(width=120, file=out))
    text = out.getvalue()
    assert "maskdit" in text
    assert "95% Student t interval" in text
    assert f"{root}/sweeps/methods: table.md" in text


@pytest.mark.slow
def test_a_narrow_terminal_shows_probes_and_samples_in_two_tables(root: Path) -> None:
    out = io.StringIO()
    print_report(root, "methods", rich.console.Console(width=80, file=out, force_terminal=True, color_system=None))
    lines = out.getvalue().splitlines()
    first = out.getvalue().partition("Differences to")[0].splitlines()
    rows = [line.split() for line in first if line.strip().startswith("maskdit  ")]
    assert [len(row) for row in rows] == [1 + 4 * 3, 1 + 4 * 3]
    assert max(map(len, lines[:-1])) <= 80


@pytest.mark.slow
def test_a_pipe_gets_the_whole_width(root: Path) -> None:
    out = io.StringIO()
    print_report(root, "methods", rich.console.Console(width=80, file=out))
    row = next(line for line in out.getvalue().splitlines() if line.strip().startswith("maskdit"))
    assert len(row.split()) == 1 + 8 * 3
