"""Summaries: means and intervals over seeds, split columns for numbers that are not comparable, notes on missing ones."""

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
from umd_bench.reporting.pages.summary_table import cells
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


def test_default_columns_are_scores_by_stage_without_spreads_and_comparison_rows(tmp_path: Path) -> None:
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


def test_named_metrics_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS, sets=("seeds=[0]",))
    summary = summarize(tmp_path, "mask_ratio", metrics=["generate.fd_*", "probe.acc_100shot", "pretrain.loss"])
    assert [f"{c.stage}.{c.metric}" for c in summary.columns] == [
        "generate.fd_digits_cnn",
        "generate.fd_inf_digits_cnn",
        "probe.acc_100shot",
        "pretrain.loss",
    ]
    with pytest.raises(UserError, match=r"no metric matches 'probe.fid'.*probe.acc_10shot"):
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


def test_a_failed_seed_lowers_n_and_a_note_names_it(tmp_path: Path) -> None:
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


def test_raw_pixels_and_real_images_are_rows_not_columns(root: Path) -> None:
    summary = summarize(root, "mask_ratio")
    assert not any(column.metric.startswith(("pixel_", "floor_")) for column in summary.columns)
    pixels, floor = summary.comparison_rows
    assert (pixels.name, floor.name) == ("raw pixels", "real images")
    assert set(floor.estimates) == {FD}
    # one value per seed, however many arms repeat it; the floor has no seed
    assert (pixels.estimates[PROBE].n, floor.estimates[FD].n, floor.estimates[FD].mean) == (3, 1, 0.41)


def test_a_comparison_that_differs_between_arms_has_a_row_for_each_of_its_values(tmp_path: Path) -> None:
    def other_pixels(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "probe" and trial.id == "mask_ratio=0.5,seed=1":
            result["metrics"]["pixel_acc_10shot"] = 0.5

    build_sweep(tmp_path, axes=TWO_ARMS, edit=other_pixels)
    compared = {row.name: row.estimates for row in summarize(tmp_path, "mask_ratio").comparison_rows}
    assert list(compared) == ["raw pixels (mask_ratio 0.25)", "raw pixels (mask_ratio 0.5)", "real images"]
    one, other = (compared[f"raw pixels (mask_ratio {value})"] for value in ("0.25", "0.5"))
    assert [value == 0.5 for value in other[PROBE].values] == [False, True, False]
    assert one[PROBE].values[::2] == other[PROBE].values[::2]


def untrained(levels: dict[str, float]) -> Any:
    """An edit that gives every probe the accuracy 0.8 + 0.01 seed, and its initial weights the accuracy in ``levels``."""

    def edit(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage.endswith("probe"):
            accuracy = 0.8 + 0.01 * trial.config.seed
            result["metrics"] |= {"acc_10shot": accuracy, "untrained_acc_10shot": levels[trial.config.method]}

    return edit


def test_untrained_weights_have_a_row_for_each_architecture_and_an_arm_without_a_stage_joins_one(tmp_path: Path) -> None:
    methods = {"method": ["umd", "mae", "dit_scratch"]}  # the last has no fine-tuned probe
    build_sweep(tmp_path, "methods", axes=methods, edit=untrained({"umd": 0.1, "mae": 0.7, "dit_scratch": 0.1}))
    rows = [row for row in summarize(tmp_path, "methods").comparison_rows if row.name.startswith("untrained")]
    assert [row.name for row in rows] == ["untrained weights (umd, dit_scratch)", "untrained weights (mae)"]
    assert [row.estimates[PROBE].mean for row in rows] == pytest.approx([0.1, 0.7])
    assert [row.estimates[PROBE].n for row in rows] == [3, 3]  # a value for each seed, though they are equal
    assert [len(row.estimates) for row in rows] == [2, 2]  # of the probe and of the fine-tuned probe


def test_untrained_weights_of_arms_without_a_common_number_stay_apart(tmp_path: Path) -> None:
    """Of two architectures one has only its first seed so far, and the other its second: their mean would mean nothing."""
    skipped = {"method=umd,seed=1": ("probe", "finetune_probe"), "method=mae,seed=0": ("probe", "finetune_probe")}
    edit = untrained({"umd": 0.1, "mae": 0.7})
    build_sweep(tmp_path, "methods", axes={"method": ["umd", "mae"]}, sets=("seeds=[0, 1]",), edit=edit, skipped=skipped)
    rows = {row.name: row.estimates for row in summarize(tmp_path, "methods").comparison_rows}
    assert {name: one[PROBE].mean for name, one in rows.items() if name.startswith("untrained")} == {
        "untrained weights (umd)": 0.1,
        "untrained weights (mae)": 0.7,
    }
    assert rows["raw pixels"][PROBE].n == 2  # pixels have no architecture


def test_raw_latents_are_a_row(tmp_path: Path) -> None:
    def edit(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "probe":
            result["metrics"]["latent_acc_10shot"] = result["metrics"].pop("pixel_acc_10shot")

    build_sweep(tmp_path, axes=TWO_ARMS, edit=edit)
    rows = {row.name: row.estimates for row in summarize(tmp_path, "mask_ratio").comparison_rows}
    assert PROBE in rows["raw latents"]


def test_comparison_rows_that_no_single_axis_tells_apart_are_named_by_all_axes(tmp_path: Path) -> None:
    def edit(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "probe":
            result["metrics"]["pixel_acc_10shot"] = 0.5 + (
                trial.id in ("method=umd,depth=2,seed=0", "method=mae,depth=3,seed=0")
            )

    build_sweep(tmp_path, axes={"method": ["umd", "mae"], "model.depth": [2, 3]}, sets=("seeds=[0]",), edit=edit)
    names = [row.name for row in summarize(tmp_path, "mask_ratio").comparison_rows]
    assert names[:2] == ["raw pixels (umd, 2; mae, 3)", "raw pixels (umd, 3; mae, 2)"]


@pytest.mark.parametrize(
    ("seeds", "level", "above"),
    [
        ("[0, 1, 2]", 0.78, True),  # 0.03 +- 0.025
        ("[0, 1, 2]", 0.79, False),  # 0.02 +- 0.025
        ("[0, 1, 2]", 0.95, False),
        ("[0]", 0.79, True),  # one seed has no interval
        ("[0]", 0.81, False),
    ],
)
def test_an_arm_is_above_its_untrained_weights_if_the_paired_interval_is(
    seeds: str, level: float, above: bool, tmp_path: Path
) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS, sets=(f"seeds={seeds}",), edit=untrained({"umd": level}))
    summary = summarize(tmp_path, "mask_ratio")
    assert {arm.above_untrained(PROBE) for arm in summary.arms} == {above}
    assert {arm.above_untrained(FD) for arm in summary.arms} == {None}
    assert summary.arms[0].gains[PROBE].mean == pytest.approx(0.8 + 0.01 * (len(summary.sweep.seeds) > 1) - level)
    assert summary.frame()["probe.acc_10shot.above_untrained"].tolist()[:3] == [above, above, pd.NA]
    assert any("untrained weights: of the differences" in note for note in summary.notes) is not above
    assert ["†" in cell for cell in cells(summary)["probe 10-shot % ↑"]][:3] == [not above, not above, False]


def test_the_summary_frame_keeps_full_precision(root: Path) -> None:
    summary = summarize(root, "mask_ratio")
    frame = summary.frame()
    assert frame["row"].tolist() == ["arm"] * 6 + ["raw pixels", "real images"]
    assert frame.loc[0, "probe.acc_10shot.mean"] == summary.arms[0].estimates[PROBE].mean
    assert math.isclose(frame.loc[0, "probe.acc_10shot.half95"], summary.arms[0].estimates[PROBE].half or 0)


def edited(**facts: object) -> Any:
    """An edit that gives every generate result a resize and a reference hash, and the results of seed 2 also ``facts``."""

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
        # another extractor implies another reference hash, so the header names only the extractor
        (
            {"extractor_hash": "f" * 64, "reference_hash": "b" * 64},
            ["extractor_hash=eeeeeeeeeeee", "extractor_hash=ffffffffffff"],
        ),
        ({"resize": None, "reference_hash": None}, [""]),  # an earlier version's result
    ],
)
def test_numbers_with_different_resizing_or_reference_never_share_a_column(
    tmp_path: Path, facts: dict[str, Any], variants: list[str]
) -> None:
    build_sweep(tmp_path, axes=TWO_ARMS, edit=edited(**facts))
    summary = summarize(tmp_path, "mask_ratio", metrics=["generate.fd_digits_cnn"])
    assert [column.variant for column in summary.columns] == variants


def test_a_further_extractor_has_its_own_columns_and_note(tmp_path: Path) -> None:
    def scored_too(trial: Trial, stage: str, result: dict[str, Any]) -> None:
        if stage == "generate":
            result["metrics"]["fd_timm_x"] = 40.0 + trial.config.seed
            result["facts"]["by_metric"]["fd_timm_x"] = {
                "further_extractor": True,
                "extractor": "timm:x",
                "extractor_hash": "f" * 64,
                "resize": "bicubic to 224",
                "extractor_accuracy": None,
            }
            result["facts"]["extractor_accuracy"] = 0.988

    build_sweep(tmp_path, axes=TWO_ARMS, edit=scored_too)
    summary = summarize(tmp_path, "mask_ratio")
    assert {c.metric: c.variant for c in summary.columns}["fd_timm_x"] == ""
    facts = "extractor hash ffffffffffff; resize bicubic to 224; reference n 360."
    assert f"generate, the same samples with timm:x: {facts}" in summary.notes
    (own,) = [note for note in summary.notes if note.startswith("generate: ")]
    assert "extractor digits_cnn; extractor hash eeeeeeeeeeee; the extractor's own accuracy 0.988" in own
    assert "timm" not in own
