"""The summary: means and intervals over seeds, numbers that cannot be compared kept apart, what is missing said."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from reporting.built_results import TWO_ARMS, build_sweep
from scipy import stats

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Trial
from umd_bench.reporting.frames.sweep_frames import long_frame
from umd_bench.reporting.notation.formatting import format_mean
from umd_bench.reporting.notation.metrics import header, shown_by_default
from umd_bench.reporting.statistics.notes import format_facts
from umd_bench.reporting.statistics.summary import Column, estimate, summarize

FD = Column("generate", "fd_digits_cnn")
PROBE = Column("probe", "acc_10shot")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    build_sweep(folder)
    return folder


def test_the_interval_is_students_t() -> None:
    values = [1.0, 2.0, 4.0]
    low, high = stats.t.interval(0.95, 2, loc=7 / 3, scale=stats.sem(values))
    found = estimate(values)
    assert (found.mean, found.n) == (pytest.approx(7 / 3), 3)
    assert found.half == pytest.approx((high - low) / 2, rel=1e-12)


def test_one_seed_has_no_interval() -> None:
    assert estimate([3.0]).half is None


def test_an_arm_is_the_mean_of_its_seeds(root: Path) -> None:
    summary = summarize(root, "mask_ratio")
    frame = long_frame(root, "mask_ratio")
    assert [row.axes["mask_ratio"] for row in summary.arms] == [0, 0.125, 0.25, 0.375, 0.5, 0.75]
    for row in summary.arms:
        same = (frame["mask_ratio"] == row.axes["mask_ratio"]) & (frame["stage"] == "probe") & (frame["metric"] == "acc_10shot")
        assert row.estimates[PROBE].mean == pytest.approx(frame.loc[same, "value"].mean(), rel=1e-12)
        assert row.estimates[PROBE].n == 3


def test_the_standard_columns_are_the_scores_by_stage_without_spreads_and_references(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS, sets=("seeds=[0]",))
    headers = [column.header for column in summarize(tmp_path, "mask_ratio").columns]
    assert headers == [
        "probe 10-shot % ↑",
        "probe 100-shot % ↑",
        "fine-tuned probe 10-shot % ↑",
        "fine-tuned probe 100-shot % ↑",
        "fd_digits_cnn ↓",
        "fd_inf_digits_cnn ↓",
        "kid_digits_cnn ×10³ ↓",
        "accuracy_digits_cnn % ↑",
    ]


def test_metrics_that_are_asked_for_come_in_the_asked_order(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS, sets=("seeds=[0]",))
    summary = summarize(tmp_path, "mask_ratio", metrics=["generate.fd_*", "probe.acc_100shot", "pretrain.loss"])
    assert [f"{c.stage}.{c.metric}" for c in summary.columns] == [
        "generate.fd_digits_cnn",
        "generate.fd_inf_digits_cnn",
        "probe.acc_100shot",
        "pretrain.loss",
    ]
    with pytest.raises(UserError, match=r"metric 'probe.fid' is not there.*probe.acc_10shot"):
        summarize(tmp_path, "mask_ratio", metrics=["probe.fid"])
    with pytest.raises(UserError, match=r"x = 'seed' is not an axis.*mask_ratio"):
        summarize(tmp_path, "mask_ratio", x="seed")


def test_numbers_from_different_sample_counts_never_share_a_column(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes={"stages.generate.n": [100, 500]})
    summary = summarize(tmp_path, "mask_ratio", metrics=["generate.fd_digits_cnn"])
    assert [column.variant for column in summary.columns] == ["n=100", "n=500"]
    assert [[c.variant for c in row.estimates] for row in summary.arms] == [["n=100"], ["n=500"]]


def test_numbers_from_different_extractors_never_share_a_column(tmp_path: Path) -> None:
    def retrained(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "generate" and trial.config.seed == 2:
            result["facts"]["extractor_hash"] = "f" * 64

    build_sweep(tmp_path, axes=TWO_ARMS, edit=retrained)
    summary = summarize(tmp_path, "mask_ratio", metrics=["generate.fd_digits_cnn"])
    assert [column.variant for column in summary.columns] == ["extractor_hash=eeeeeeeeeeee", "extractor_hash=ffffffffffff"]
    assert [[e.n for e in row.estimates.values()] for row in summary.arms] == [[2, 1]] * 2


def test_a_failed_seed_lowers_n_and_is_named(tmp_path: Path) -> None:
    trial = "mask_ratio=0.5,seed=1"
    build_sweep(tmp_path, axes=TWO_ARMS, failed={(trial, "finetune"): "nan"}, skipped={trial: ("finetune_probe", "generate")})
    summary = summarize(tmp_path, "mask_ratio")
    arms = {row.axes["mask_ratio"]: row for row in summary.arms}
    assert (arms[0.5].estimates[FD].n, arms[0.5].estimates[PROBE].n, arms[0.25].estimates[FD].n) == (2, 3, 3)
    assert f"Missing: finetune of {trial} (failed: nan)." in summary.notes
    assert f"Missing: finetune_probe, generate of {trial} (no result)." in summary.notes


def test_an_arm_without_any_result_keeps_its_row(tmp_path: Path) -> None:
    trials = [f"mask_ratio=0.5,seed={seed}" for seed in range(3)]
    stages = ("pretrain", "probe", "finetune", "finetune_probe", "generate")
    build_sweep(tmp_path, axes=TWO_ARMS, skipped=dict.fromkeys(trials, stages))
    summary = summarize(tmp_path, "mask_ratio")
    assert [len(row.estimates) for row in summary.arms] == [8, 0]
    assert summary.frame().loc[1, "generate.fd_digits_cnn.n"] == 0


def test_references_are_rows_not_columns(root: Path) -> None:
    summary = summarize(root, "mask_ratio")
    assert not any(column.metric.startswith(("pixel_", "floor_")) for column in summary.columns)
    pixels, floor = summary.references
    assert (pixels.name, floor.name) == ("raw pixels", "real train vs test")
    assert set(floor.estimates) == {FD}
    # one value a seed however many arms repeat it; the floor knows no seed at all
    assert (pixels.estimates[PROBE].n, floor.estimates[FD].n, floor.estimates[FD].mean) == (3, 1, 0.41)


def test_a_reference_that_arms_disagree_on_is_not_averaged(tmp_path: Path) -> None:
    def other_pixels(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "probe" and trial.id == "mask_ratio=0.5,seed=1":
            result["metrics"]["pixel_acc_10shot"] = 0.5

    build_sweep(tmp_path, axes=TWO_ARMS, edit=other_pixels)
    summary = summarize(tmp_path, "mask_ratio")
    assert PROBE not in summary.references[0].estimates
    assert any("probe 10-shot" in note and "differs between arms" in note for note in summary.notes)


def test_a_field_that_one_of_two_axes_decides_is_told_by_that_axis_alone() -> None:
    rows = pd.DataFrame(
        [(block, t, f"after block {block}", t, block + t) for block in (1, 2) for t in (0, 51)],
        columns=["block", "t", "position", "probe_t", "both"],
    )
    names = {"position": "position", "probe_t": "t", "both": "sum"}
    assert format_facts(rows, names, ["block", "t"]) == (
        "position after block 1 (1) or after block 2 (2); sum 1 (1 0) or 52 (1 51) or 2 (2 0) or 53 (2 51)"
    )


def test_a_field_that_differs_between_the_seeds_of_every_arm_names_no_arm() -> None:
    rows = pd.DataFrame([(ratio, commit) for ratio in (0.25, 0.5) for commit in ("aa", "bb")], columns=["ratio", "commit"])
    assert format_facts(rows, {"commit": "commit"}, ["ratio"]) == "commit aa or bb"
    assert format_facts(rows.iloc[:3], {"commit": "commit"}, ["ratio"]) == "commit aa (0.25, 0.5) or bb (0.25)"


def test_notes_say_which_arm_was_probed_where(tmp_path: Path) -> None:
    build_sweep(tmp_path, "methods")
    notes = summarize(tmp_path, "methods").notes
    assert any(note.startswith("probe: ") and "t 0 (umd, mae) or 51 (dit, maskdit)" in note for note in notes)
    assert any(note.startswith("generate: n 500;") and "guidance 1.5; EMA yes" in note for note in notes)


def test_a_distance_in_other_features_is_not_called_fid() -> None:
    assert header("generate", "fd_digits_cnn") == "fd_digits_cnn ↓"
    assert header("generate", "fid") == "fid ↓"
    assert header("finetune_probe", "acc_100shot") == "fine-tuned probe 100-shot % ↑"
    assert header("late", "fd_x") == "late fd_x ↓"


@pytest.mark.parametrize(
    ("mean", "half", "percent", "text"),
    [
        (0.7834, 0.012, True, "78.3 ± 1.2"),
        (0.7834, None, True, "78.3"),
        (0.7834, 0.0001, True, "78.340 ± 0.010"),
        (15.5815, 0.84, False, "15.6 ± 0.8"),
        (248.67, 31.4, False, "249 ± 31"),
        (0.0102, None, False, "0.0102"),
        (1.0, 0.0, False, "1.00 ± 0.00"),
        (0.0, None, False, "0.00"),
    ],
)
def test_digits_are_those_the_number_has(mean: float, half: float | None, percent: bool, text: str) -> None:
    assert format_mean(mean, half, percent=percent) == text


def test_a_wide_frame_keeps_full_precision(root: Path) -> None:
    summary = summarize(root, "mask_ratio")
    frame = summary.frame()
    assert frame["row"].tolist() == ["arm"] * 6 + ["raw pixels", "real train vs test"]
    assert frame.loc[0, "probe.acc_10shot.mean"] == summary.arms[0].estimates[PROBE].mean
    assert math.isclose(frame.loc[0, "probe.acc_10shot.half95"], summary.arms[0].estimates[PROBE].half or 0)


def edited(**facts: object) -> Any:
    """An edit that gives the results of seed 2 these facts, and all of them a resize and a reference hash."""

    def edit(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "generate":
            result["facts"] |= {"resize": "none", "reference_hash": "a" * 64}
            if trial.config.seed == 2:
                result["facts"] |= facts

    return edit


@pytest.mark.parametrize(
    ("facts", "variants"),
    [
        ({"resize": "bilinear to 299"}, ["resize=none", "resize=bilinear to "]),
        ({"reference_hash": "b" * 64}, ["reference_hash=aaaaaaaaaaaa", "reference_hash=bbbbbbbbbbbb"]),
        # another extractor has other statistics of the same images: said once
        (
            {"extractor_hash": "f" * 64, "reference_hash": "b" * 64},
            ["extractor_hash=eeeeeeeeeeee", "extractor_hash=ffffffffffff"],
        ),
        ({"resize": None, "reference_hash": None}, [""]),  # an earlier version's result
    ],
)
def test_numbers_of_other_resizing_or_reference_never_share_a_column(
    tmp_path: Path, facts: dict[str, Any], variants: list[str]
) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS, edit=edited(**facts))
    summary = summarize(tmp_path, "mask_ratio", metrics=["generate.fd_digits_cnn"])
    assert [column.variant for column in summary.columns] == variants


def test_the_inception_score_is_shown_where_no_accuracy_is_and_the_rest_where_asked_for() -> None:
    own = ["fd_x", "fd_x_sd", "is_x", "accuracy_x", "kid_x", "memorised_x", "fd_inf_x"]
    assert shown_by_default(own) == ["fd_x", "accuracy_x", "kid_x", "fd_inf_x"]
    assert shown_by_default(["fid", "fid_inf", "sfid", "is", "precision", "recall", "kid", "memorised"]) == [
        *("fid", "fid_inf", "sfid", "is", "precision", "recall", "kid"),
    ]
    assert header("generate", "memorised_x") == "memorised_x % ↓"


def test_the_memorisation_alarm_is_a_note_that_names_the_runs(tmp_path: Path) -> None:
    def copied(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "generate" and trial.id == "mask_ratio=0.5,seed=1":
            result["metrics"]["memorised_digits_cnn"] = 0.31

    build_sweep(tmp_path / "quiet", axes=TWO_ARMS)
    assert not any("alarm" in note for note in summarize(tmp_path / "quiet", "mask_ratio").notes)
    build_sweep(tmp_path / "loud", axes=TWO_ARMS, edit=copied)
    (note,) = [note for note in summarize(tmp_path / "loud", "mask_ratio").notes if "alarm" in note]
    assert "31.0% of mask_ratio=0.5,seed=1 (5% expected)" in note
    assert "seed=0" not in note


def test_a_further_extractor_has_columns_and_a_note_of_its_own(tmp_path: Path) -> None:
    def scored_too(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "generate":
            result["metrics"]["fd_timm_x"] = 40.0 + trial.config.seed
            result["facts"]["by_metric"]["fd_timm_x"] = {
                "further_extractor": True,
                "extractor": "timm:x",
                "extractor_hash": "f" * 64,
                "resize": "bicubic to 224",
            }

    build_sweep(tmp_path, axes=TWO_ARMS, edit=scored_too)
    summary = summarize(tmp_path, "mask_ratio")
    assert {c.metric: c.variant for c in summary.columns}["fd_timm_x"] == ""
    facts = "extractor hash ffffffffffff; resize bicubic to 224; reference n 360."
    assert f"generate, the same samples with timm:x: {facts}" in summary.notes
    (own,) = [note for note in summary.notes if note.startswith("generate: ")]
    assert "extractor digits_cnn; extractor hash eeeeeeeeeeee" in own
    assert "timm" not in own


def test_the_extrapolation_and_the_kernel_distance_are_explained_where_they_are_shown(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS)
    both = summarize(tmp_path, "mask_ratio").notes
    neither = summarize(tmp_path, "mask_ratio", metrics=["probe.*"]).notes
    assert [sum(note.startswith(("fd_inf", "kid")) for note in notes) for notes in (both, neither)] == [2, 0]
