"""Exponents are slopes, made-up folders are like real ones, and the notebook's hand-written part is never touched."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from umd_bench.bench.measurements.scale import Growth, ScaleFinding, counted_growth, exponent, training_growths
from umd_bench.bench.measurements.startup import BARE, HELP, Note, bench_startup, until_first_stage
from umd_bench.bench.page import BEGIN, END, check_page, generated, write_page
from umd_bench.bench.timing.folders import NAME, made_up_axis_sweep, made_up_results, made_up_sweep, record_of
from umd_bench.bench.timing.machine import machine_facts
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.data.packs.manifest import data_root
from umd_bench.orchestration.graph import build_graph, trial_records
from umd_bench.reporting.frames.sweep_frames import long_frame
from umd_bench.store import StageState, write_sweep

CPU = torch.device("cpu")
MACHINE = machine_facts(CPU, None, "a processor")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umd_bench.bench.timing.rates.REPEAT_SECONDS", 0.001)


def finding(*seconds: float) -> ScaleFinding:
    return ScaleFinding(MACHINE, (Growth("a thing", "the trials", (1, 10, 100), seconds),))


def test_the_exponent_of_a_power_is_its_power() -> None:
    assert exponent((1, 10, 100), (2, 20, 200)) == pytest.approx(1)
    assert exponent((2, 4, 8), (3, 12, 48)) == pytest.approx(2)
    with pytest.raises(ValueError, match="two different sizes"):
        exponent((3, 3), (1, 2))


def test_what_grows_worse_than_linearly_at_its_end_is_named() -> None:
    assert finding(1, 10, 100).remarks() == ["Nothing grows worse than linearly."]
    found = finding(1, 1, 100)
    assert found.growths[0].exponent == pytest.approx(1)
    assert "a thing (2.00)" in found.remarks()[0]
    assert json.loads(json.dumps(found.as_json()))["exponents"][0]["last"] == pytest.approx(2)


def test_growth_of_training_is_over_flops_and_of_other_things_over_their_number() -> None:
    batch, width, tokens = training_growths(
        repeats=1, device=CPU, progress=lambda _: None, batches=(4, 8), widths=(16, 32), tokens=(4, 16)
    )
    assert batch.flops == ()
    assert width.flops == tuple(sorted(width.flops))
    assert len(tokens.flops) == len(tokens.seconds) == 2
    counted = counted_growth("sum", "things", (1, 2), lambda n: lambda: sum(range(n)), repeats=1, progress=lambda _: None)
    assert (counted.sizes, len(counted.seconds)) == ((1, 2), 2)


def test_made_up_results_are_a_finished_sweep(tmp_path: Path) -> None:
    sweep = made_up_results(tmp_path, 3)
    write_sweep(tmp_path, record_of(sweep, trial_records(sweep.trials)))
    assert {node.state for node in build_graph(tmp_path, sweep.trials).values()} == {StageState.DONE}
    frame = long_frame(tmp_path, NAME)
    assert sorted(frame["seed"].unique()) == [0, 1, 2]
    assert set(frame["metric"]) >= {"made_up"}


@pytest.mark.parametrize("write", [made_up_sweep, made_up_axis_sweep])
def test_made_up_sweeps_have_so_many_trials_that_differ(tmp_path: Path, write: Callable[[Path, int], Path]) -> None:
    trials = load_sweep(write(tmp_path, 4)).trials
    assert len({trial.specs["probe"].key for trial in trials}) == len(trials) == 4


def test_only_what_stands_between_the_markers_is_replaced(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"by hand\n{BEGIN}\nformer tables\n{END}\nby hand too\n", encoding="utf-8")
    write_page(page, generated([("umd-bench bench scale", finding(1, 10, 100))], 120, of=2))
    text = page.read_text(encoding="utf-8")
    assert text.startswith(f"by hand\n{BEGIN}\n")
    assert text.endswith(f"{END}\nby hand too\n")
    assert "former tables" not in text
    assert "### `umd-bench bench scale`" in text
    assert "| a thing | the trials | 1, 10, 100 |" in text
    assert MACHINE.line in text
    assert "after 1 of 2 benchmarks" in text


@pytest.mark.parametrize("text", ["", f"{END}\n{BEGIN}", f"{BEGIN}", f"{BEGIN}{BEGIN}{END}"])
def test_a_page_without_its_markers_is_refused_and_left(tmp_path: Path, text: str) -> None:
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match="no generated part"):
        write_page(page, "new")
    assert page.read_text(encoding="utf-8") == text
    with pytest.raises(UserError, match="cannot be read"):
        write_page(tmp_path / "none.md", "new")


def test_the_notebook_has_its_markers() -> None:
    assert check_page(Path(__file__).parents[2] / "docs" / "performance.md")


def test_start_up_is_held_against_a_python_that_does_nothing() -> None:
    commands = {BARE: ["-c", "pass"], "more": ["-c", "import time; time.sleep(.2)"]}
    commands[HELP] = ["-c", "sum(range(30_000_000))"]
    notes = (Note("a stage", 3.0, aim=50.0), Note("a sweep", 7.0, aim=6.0), Note("anything", 9.0))
    found = bench_startup(machine=MACHINE, repeats=1, notes=notes, commands=commands)
    assert found.over_bare("more").median > 1
    assert [table.title for table in found.tables()] == ["Start-up of a process", "Runner"]
    [remark] = found.remarks()
    assert "a sweep (7.00 ms)" in remark
    assert "a stage" not in remark
    assert "anything" not in remark
    assert found.held[0].milliseconds > 50, "the CPU time of the process is not counted"
    with pytest.raises(subprocess.CalledProcessError):
        bench_startup(machine=MACHINE, repeats=1, commands={BARE: ["-c", "raise SystemExit(3)"]})


@pytest.mark.slow
def test_a_sweep_begins_before_it_ends_and_leaves_no_process(tmp_path: Path) -> None:
    assert 0 < until_first_stage(tmp_path, data_root(), executor="inline") < 120


def test_a_sweep_that_does_not_begin_says_why(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no-such-executor"):
        until_first_stage(tmp_path, tmp_path, executor="no-such-executor")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train"], "expected --tier, or --model"),
        (["train", "--tier", "digits", "--precision", "fp8"], "--precision"),
        (["sample", "--sampler", "none"], "--sampler"),
        (["scale", "--device", "tpu"], "--device"),
        (["sweep", "--on", "nowhere"], "nowhere"),
        (["all", "--page", "none.md"], "none.md"),
    ],
)
def test_a_verb_refuses_in_one_sentence(arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from umd_bench.cli import app

    monkeypatch.setattr(sys, "argv", ["umd-bench", "bench", *arguments])
    with pytest.raises(UserError, match=words):
        app(["bench", *arguments], standalone_mode=False)
