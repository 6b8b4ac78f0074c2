"""Differences to the baseline: the paired t interval over common seeds, marked if it excludes 0."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rich.console
from hypothesis import assume, given
from hypothesis import strategies as st
from reporting.built_results import TWO_ARMS, build_sweep
from reporting.statistics.test_search_summary import searched
from scipy import stats
from typer.testing import CliRunner

from umd_bench.cli import app
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.sweep import ReportConfig
from umd_bench.reporting.pages import difference_table, summary_table
from umd_bench.reporting.report import print_report, report_json, write_report
from umd_bench.reporting.statistics.differences import Difference, Differences, compare_with_baseline, difference_of, holm
from umd_bench.reporting.statistics.summary import Column, Row, Summary, estimate, summarize
from umd_bench.store import RunDir, SweepRecord, TrialRecord, read_sweep

FD, LOSS, SHOTS = Column("generate", "fd_x"), Column("pretrain", "loss"), Column("probe", "acc_10shot")
RATIO = "stages.pretrain.corruption.mask_ratio"


def made_up(values: Mapping[str, Mapping[int, float]], column: Column = FD, *, shared: bool = False) -> Differences:
    """Arms of an axis ``method`` with values by seed; the first is the baseline, and with ``shared`` all have the same runs."""
    seeds = sorted({seed for own in values.values() for seed in own})
    trials = [
        TrialRecord(
            id=f"method={arm},seed={seed}",
            method=arm,
            axes={"method": arm},
            seed=seed,
            stages={column.stage: f"{'' if shared else arm}{seed}"},
        )
        for arm in values
        for seed in seeds
    ]
    record = SweepRecord(
        name="s", question="", tier="digits", axes={"method": list(values)}, seeds=seeds, report=ReportConfig(), trials=trials
    )
    arms = [
        Row(
            {"method": arm},
            {column: estimate(list(own.values()), list(own))} if own else {},
            trials=tuple(f"method={arm},seed={seed}" for seed in seeds),
        )
        for arm, own in values.items()
    ]
    found = compare_with_baseline(
        Summary(
            record, pd.DataFrame(), pd.DataFrame(), ("method",), "method", (column,), tuple(arms), notes=(), baseline=arms[0]
        )
    )
    assert found is not None
    return found


def only(found: Differences) -> Difference:
    ((_, ones),) = found.rows
    (one,) = ones.values()
    return one


def cell(found: Differences) -> str:
    return str(difference_table.cells(found).iloc[0, -1])


@pytest.fixture(autouse=True)
def no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures take most of a report's time and do not show the baseline."""
    monkeypatch.setattr("umd_bench.reporting.report.summary_figure", lambda summary: None)
    monkeypatch.setattr("umd_bench.reporting.report.search_figure", lambda found: None)


numbers = st.integers(-(10**6), 10**6).map(lambda value: value / 1000)


@pytest.mark.slow
@given(pairs=st.lists(st.tuples(numbers, numbers), min_size=2, max_size=8))
def test_the_interval_and_its_p_are_those_of_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = (np.array(side) for side in zip(*pairs, strict=True))
    assume(np.ptp(ours - theirs) > 1e-3)
    known = stats.ttest_rel(ours, theirs)
    low, high = known.confidence_interval(0.95)
    one = only(made_up({"a": dict(enumerate(theirs.tolist())), "b": dict(enumerate(ours.tolist()))}))
    assert one.paired.half is not None
    spread = max(abs(low), abs(high))
    assert one.paired.mean - one.paired.half == pytest.approx(low, rel=1e-9, abs=1e-9 * spread)
    assert one.paired.mean + one.paired.half == pytest.approx(high, rel=1e-9, abs=1e-9 * spread)
    assert one.p == pytest.approx(known.pvalue, rel=1e-6)
    if abs(known.pvalue - 0.05) > 1e-9:
        assert (one.verdict != "") == (low > 0 or high < 0) == (known.pvalue < 0.05)


@pytest.mark.slow
@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_step_by_step_until_the_first_that_is_not_significant(p: list[float]) -> None:
    rejected = set[int]()
    for step, place in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        if p[place] * (len(p) - step) > 0.05:
            break
        rejected.add(place)
    assert {place for place, corrected in enumerate(holm(p)) if corrected <= 0.05} == rejected


def test_holms_p_values_are_those_of_the_textbook() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_differences_between_seeds_that_both_arms_share_cancel() -> None:
    """The intervals of the two means overlap widely, but the interval of the differences excludes 0."""
    found = made_up({"a": {0: 1.0, 1: 5.0, 2: 9.0}, "b": {0: 1.5, 1: 5.4, 2: 9.6}})
    assert only(found).paired.mean == pytest.approx(0.5)
    assert cell(found) == "+0.50 ± 0.25 ○"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("column", "sign", "verdict"),
    [(FD, 1, "worse"), (FD, -1, "better"), (SHOTS, 1, "better"), (SHOTS, -1, "worse"), (LOSS, 1, "other"), (LOSS, -1, "other")],
)
def test_the_verdict_follows_the_metrics_direction(column: Column, sign: int, verdict: str) -> None:
    found = made_up(
        {"a": dict.fromkeys(range(3), 0.5), "b": {0: 0.5 + sign * 0.1, 1: 0.5 + sign * 0.11, 2: 0.5 + sign * 0.12}}, column
    )
    assert only(found).verdict == verdict
    assert cell(found)[0] == ("+" if sign > 0 else "-")
    assert ("≠" in found.notes[1]) == (verdict == "other")


def test_only_common_seeds_are_compared_and_the_cell_shows_their_number() -> None:
    found = made_up({"a": {0: 1.0, 1: 2.0, 3: 9.0}, "b": {3: 9.5, 1: 2.6, 2: 70.0}})
    assert only(found).paired.n == 2
    assert only(found).paired.values == pytest.approx((0.5, 0.6))
    assert cell(found) == "+0.55 ± 0.64 (n=2)"


@pytest.mark.parametrize("other", [{}, {2: 1.0}, {0: 1.0}])
def test_fewer_than_two_common_seeds_are_a_dash(other: dict[int, float]) -> None:
    found = made_up({"a": {0: 1.0, 1: 2.0}, "b": other, "c": {0: 1.0, 1: 2.5}})
    assert cell(found) == "–"
    assert found.frame()["n"].tolist() == [int(0 in other), 2]
    assert found.frame()["excludes_0"].isna().tolist() == [True, False]
    assert "of these 1 comparisons" in found.notes[2]


def test_arms_that_share_their_runs_are_not_compared() -> None:
    values = {0: 1.0, 1: 2.0}
    found = made_up({"a": values, "b": values}, shared=True)
    assert (cell(found), only(found).p) == ("same", None)
    assert "same: both arms share these runs" in found.notes[0]
    assert not any("correction" in note for note in found.notes)
    apart = made_up({"a": values, "b": values})
    assert (cell(apart), only(apart).p, only(apart).verdict) == ("0.00 ± 0.00", 1.0, "")


def test_constant_differences_have_an_interval_of_no_width() -> None:
    one = difference_of([0.5, 0.5, 0.5], [0, 1, 2], "up")
    assert (one.p, one.verdict) == (0.0, "better")


def test_without_a_mark_there_is_nothing_to_correct() -> None:
    note = made_up({"a": {0: 1.0, 1: 2.0}, "b": {0: 1.5, 1: 1.5}}).notes[2]
    assert note.endswith("; none is.")


def test_the_notes_count_marks_expected_by_chance_and_name_the_marks_that_survive_the_correction() -> None:
    base = dict.fromkeys(range(4), 1.0)
    sure = {seed: 2.0 + 1e-4 * seed for seed in base}
    unsure = {0: 1.5, 1: 1.6, 2: 1.2, 3: 1.2}  # p = 0.03
    found = made_up({"a": base, "b": sure, "c": unsure, "d": {0: 0.5, 1: 1.5, 2: 0.7, 3: 1.4}})
    assert difference_table.cells(found).iloc[:, -1].str[-1].tolist()[:2] == ["○", "○"]
    assert "about 0.15 of these 3 comparisons would be marked by chance" in found.notes[2]
    assert "2 are. Holm's correction" in found.notes[2]
    assert "leaves 1 of them (method=b in fd_x) at 5%" in found.notes[2]
    frame = found.frame()
    assert frame["verdict"].tolist() == ["worse", "worse", ""]
    assert (frame["p_holm"] >= frame["p"]).all()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    build_sweep(folder)  # its file names 0.375 as the baseline
    build_sweep(folder, "sampler")
    return folder


@pytest.mark.slow
def test_a_sweep_whose_file_names_a_baseline_has_the_table_on_every_page_and_as_csv(root: Path, tmp_path: Path) -> None:
    paths = write_report(summarize(root, "mask_ratio"), root, out=tmp_path)
    heading = "Differences to mask_ratio=0.375"
    section = paths.table_md.read_text().partition(f"\n## {heading}\n")[2]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["0", "0.125", "0.25", "0.5", "0.75"]
    assert len({len(line) for line in lines}) == 1
    html, latex = paths.table_html.read_text(), paths.table_tex.read_text()
    assert (html.count("<table"), html.count("</html>"), heading in html) == (2, 1, True)
    assert (latex.count(r"\begin{table}"), latex.isascii()) == (2, True)
    marked = sum(line.count("**") // 2 for line in lines)
    assert (
        marked
        == len(re.findall("font-weight: bold;[^<]*>[^<]*[●○]", html))
        == len(re.findall(r"(?:bullet|circ)\$ [&\\]", latex))
    )
    assert marked > 0
    assert paths.differences_csv is not None
    frame = pd.read_csv(paths.differences_csv)
    assert frame["excludes_0"].sum() == marked
    long = pd.read_csv(paths.long_csv)
    own = long[(long["stage"] == "generate") & (long["metric"] == "fd_digits_cnn")].pivot(index="seed", columns="mask_ratio")[
        "value"
    ]
    row = frame[(frame["metric"] == "fd_digits_cnn") & (frame["mask_ratio"] == 0.75)].iloc[0]
    interval = stats.ttest_rel(own[0.75], own[0.375]).confidence_interval(0.95)
    assert (row["mean"] - row["half95"], row["mean"] + row["half95"]) == pytest.approx(tuple(interval))
    assert (row["n"], row["baseline"]) == (3, "mask_ratio=0.375")


@pytest.mark.slow
def test_a_baseline_leaves_the_first_table_unchanged_and_its_removal_removes_the_differences(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS)
    before = write_report(summarize(tmp_path, "mask_ratio"), tmp_path)
    plain = {path: path.read_bytes() for path in before.table_md.parent.iterdir()}
    assert before.differences_csv is None
    compared = write_report(summarize(tmp_path, "mask_ratio", against={"mask_ratio": 0.25}), tmp_path)
    for path in (compared.table_csv, compared.long_csv, compared.cost_csv):
        assert path.read_bytes() == plain[path]
    assert compared.table_md.read_text().startswith(plain[compared.table_md].decode())
    assert compared.differences_csv is not None
    assert compared.differences_csv.is_file()
    write_report(summarize(tmp_path, "mask_ratio"), tmp_path)
    assert {path: path.read_bytes() for path in before.table_md.parent.iterdir()} == plain


def test_arms_are_named_by_all_axes_and_shared_stages_show_as_same(root: Path) -> None:
    found = compare_with_baseline(
        summarize(root, "sampler", against={"sampler": "heun", "steps": 10}, metrics=["generate.fd_digits_cnn"])
    )
    assert found is not None
    assert (found.baseline, len(found.rows)) == ("sampler=heun,steps=10", 11)
    probed = compare_with_baseline(summarize(root, "sampler", metrics=["pretrain.loss"]))
    assert probed is not None
    assert set(difference_table.cells(probed).iloc[:, -1]) == {"same"}


def test_a_baseline_can_be_named_by_an_axis_value_that_is_not_a_number(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes={"stages.generate.cfg_interval": [None, [0, 500]], "stages.generate.ema": [True, False]})
    summary = summarize(tmp_path, "mask_ratio", against={"cfg_interval": [0, 500], "ema": False})
    assert summary.baseline is summary.arms[3]


def test_numbers_that_are_not_comparable_have_no_difference(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes={"stages.generate.n": [100, 500]})
    found = compare_with_baseline(summarize(tmp_path, "mask_ratio", metrics=["generate.fd_digits_cnn"], against={"n": 100}))
    assert found is not None
    assert difference_table.cells(found).iloc[0, 1:].tolist() == ["–", "–"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [80, 160])
def test_the_terminal_shows_differences_below_the_first_table_and_loses_no_cell(root: Path, width: int) -> None:
    out = io.StringIO()
    print_report(root, "mask_ratio", rich.console.Console(width=width, file=out, force_terminal=True, color_system=None))
    text = out.getvalue()
    assert "differences.csv" in text.splitlines()[-1]
    lines = text.partition("Differences to mask_ratio=0.375")[2].splitlines()
    found = compare_with_baseline(summarize(root, "mask_ratio"))
    assert found is not None
    cells = difference_table.cells(found).iloc[0].tolist()
    rows = [line.split() for line in lines if line.startswith(" 0 ")]
    assert [token for row in rows for token in row if token != "0"] == [token for text in cells[1:] for token in text.split()]
    assert max(map(len, lines[:-1])) <= width


@pytest.mark.slow
def test_a_search_is_compared_when_it_is_done_and_only_its_best_are_printed(tmp_path: Path) -> None:
    searched(tmp_path)
    summary = summarize(tmp_path, "mask_ratio", against={"mask_ratio": 0.25})
    found = compare_with_baseline(summary)
    assert found is not None
    assert [arm.axes["mask_ratio"] for arm, _ in found.rows] == [0.5, 0.125, 0.75]
    assert "the best of many look better" in found.notes[-1]
    out = io.StringIO()
    print_report(tmp_path, "mask_ratio", rich.console.Console(width=120, file=out), against={"mask_ratio": 0.25})
    assert "Differences to mask_ratio=0.25" in out.getvalue()
    trials = read_sweep(tmp_path, "mask_ratio").search
    assert trials is not None
    shown = difference_table.terminal(found, None, 120, found.summary.columns, trials.suggestions[1].trials)
    assert shown.row_count == 1


@pytest.mark.slow
def test_a_failed_seed_of_the_baseline_lowers_every_n(tmp_path: Path) -> None:
    trial = "mask_ratio=0.25,seed=1"
    build_sweep(tmp_path, axes=TWO_ARMS, failed={(trial, "probe"): "oom"})
    found = compare_with_baseline(summarize(tmp_path, "mask_ratio", against={"mask_ratio": 0.25}, metrics=["probe.acc_10shot"]))
    assert found is not None
    assert cell(found).partition("(")[2].startswith("n=2)")


@pytest.mark.slow
@pytest.mark.parametrize("value", ["NaN", "Infinity", "null"])
def test_a_value_that_is_not_finite_is_not_compared(tmp_path: Path, value: str) -> None:
    record = build_sweep(tmp_path, axes=TWO_ARMS)
    key = next(trial for trial in record.trials if trial.id == "mask_ratio=0.5,seed=0").stages["generate"]
    result = RunDir(tmp_path, key).path / "result.json"
    result.write_text(re.sub(r'"fd_digits_cnn": [^,]*', f'"fd_digits_cnn": {value}', result.read_text()))
    found = compare_with_baseline(
        summarize(tmp_path, "mask_ratio", against={"mask_ratio": 0.25}, metrics=["generate.fd_digits_cnn"])
    )
    assert found is not None
    assert only(found).paired.n == 2
    assert summary_table.cells(found.summary).iloc[1, 1].endswith("(n=2)")


@pytest.mark.parametrize(
    ("against", "sentence"),
    [
        ("mask_ratio", "--against 'mask_ratio' is not accepted: expected axis=value"),
        ("mask_ratio=0.3", "mask_ratio = 0.3 is no arm: expected one of 0, 0.125, 0.25, 0.375, 0.5, 0.75"),
        ("ratio=0.25", "'ratio' is not an axis: expected mask_ratio"),
    ],
)
def test_the_command_line_refuses_an_unknown_arm_in_one_sentence(root: Path, against: str, sentence: str) -> None:
    before = {path: path.stat().st_mtime_ns for path in (root / "sweeps/mask_ratio").iterdir()}
    with pytest.raises(UserError, match=re.escape(sentence)):
        CliRunner().invoke(app, ["table", "mask_ratio", "--results", str(root), "--against", against], catch_exceptions=False)
    assert {path: path.stat().st_mtime_ns for path in (root / "sweeps/mask_ratio").iterdir()} == before


@pytest.mark.slow
def test_the_json_has_the_differences_too(root: Path) -> None:
    made = report_json(root, "mask_ratio", against={"mask_ratio": 0.5})
    assert len(made["differences"]) == 5 * 8
    assert {"baseline", "mean", "half95", "n", "verdict", "p_holm"} <= made["differences"][0].keys()
    assert sum("Holm" in note for note in made["notes"]) == 1
    assert any(file.endswith("differences.csv") for file in made["files"])


@pytest.mark.slow
def test_the_command_line_compares_with_another_arm_than_the_file_does(root: Path) -> None:
    done = CliRunner().invoke(app, ["table", "mask_ratio", "--results", str(root), "--against", "mask_ratio=0"])
    assert done.exit_code == 0
    assert "## Differences to mask_ratio=0\n" in (root / "sweeps/mask_ratio/table.md").read_text()
