"""The tidy frames: one row per metric with the facts to compare it by, no facts of the machine, and no row lost."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from reporting.built_results import TWO_ARMS, build_sweep

from umd_bench.config.errors import UserError
from umd_bench.reporting.frames.sweep_frames import axis_columns, cost_frame, long_frame
from umd_bench.store import SweepRecord


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, SweepRecord]:
    root = tmp_path_factory.mktemp("results")
    return root, build_sweep(root)


def test_every_metric_of_every_stage_of_every_trial_has_one_row(built: tuple[Path, SweepRecord]) -> None:
    root, record = built
    frame = long_frame(root, "mask_ratio")
    assert not frame.duplicated(["trial", "stage", "metric"]).any()
    # two losses, six numbers for each probe (accuracy, spread and pixels at two shot counts), seven for the samples
    assert len(frame) == len(record.trials) * (2 + 2 * 6 + 7)
    assert frame["trial"].unique().tolist() == [trial.id for trial in record.trials]


def test_a_row_has_the_provenance_of_its_number(built: tuple[Path, SweepRecord]) -> None:
    frame = long_frame(built[0], "mask_ratio")
    row = frame[(frame["metric"] == "fd_digits_cnn")].iloc[0]
    assert row[["n", "extractor", "reference", "sampler", "steps", "eta", "cfg_scale"]].tolist() == [
        500,
        "digits_cnn",
        "test",
        "ddim",
        25,
        1.0,
        1.5,
    ]
    assert (row["ema"], row["device"], row["torch"], row["exact"], len(row["key"])) == (True, "cpu", "2.14.1", True, 16)
    probe = frame[frame["metric"] == "acc_10shot"].iloc[0]
    assert (probe["probe_t"], probe["shots"], probe["draws"], probe["ridge"]) == (0, "[10, 100]", 10, 10.0)


def test_images_and_flops_are_sums_over_the_lineage(built: tuple[Path, SweepRecord]) -> None:
    frame = long_frame(built[0], "mask_ratio").drop_duplicates("stage").set_index("stage")
    assert frame["nimg"].to_dict() == {
        "pretrain": 40_960,
        "probe": 40_960,
        "finetune": 61_440,
        "finetune_probe": 61_440,
        "generate": 61_440,
    }
    assert (frame["flops"] == frame["nimg"].astype(float) * 1e7).all()


@pytest.mark.slow
def test_a_stage_on_a_snapshot_counts_the_images_up_to_it(tmp_path: Path) -> None:
    build_sweep(
        tmp_path,
        axes=TWO_ARMS,
        sets=("trial.stages.pretrain.snapshots=[10240]", "trial.stages.probe.snapshot=10240", "seeds=[0]"),
    )
    frame = long_frame(tmp_path, "mask_ratio").drop_duplicates("stage").set_index("stage")
    assert (frame.loc["probe", "nimg"], frame.loc["pretrain", "nimg"]) == (10_240, 40_960)
    assert frame.loc["probe", "flops"] == pytest.approx(10_240 * 1e7)


def test_the_long_frame_has_no_facts_of_the_machine(built: tuple[Path, SweepRecord]) -> None:
    frame = long_frame(built[0], "mask_ratio")
    assert not {"seconds", "images_per_second", "host", "device_name", "peak_memory_bytes"} & set(frame)
    text = frame.to_csv()
    assert "a-host" not in text
    assert "12.5" not in frame["value"].astype(str).tolist()


def test_types_do_not_depend_on_the_values(built: tuple[Path, SweepRecord], tmp_path: Path) -> None:
    record = built[1]
    build_sweep(tmp_path, skipped={trial.id: tuple(trial.stages) for trial in record.trials})
    full, empty = long_frame(built[0], "mask_ratio"), long_frame(tmp_path, "mask_ratio")
    known = [name for name in full if not str(name).startswith("fact.")]
    assert full[known].dtypes.equals(empty.dtypes)
    assert (full["nimg"].dtype, full["value"].dtype, full["exact"].dtype) == ("Int64", "Float64", "boolean")


def test_a_stage_without_a_result_keeps_its_row(tmp_path: Path) -> None:
    trial = "mask_ratio=0.5,seed=1"
    after = ("finetune_probe", "generate")
    build_sweep(tmp_path, axes=TWO_ARMS, failed={(trial, "finetune"): "nan"}, skipped={trial: after})
    frame = long_frame(tmp_path, "mask_ratio")
    rows = frame[(frame["trial"] == trial) & frame["value"].isna()].set_index("stage")
    assert rows["state"].to_dict() == {"finetune": "failed: nan", "finetune_probe": "no result", "generate": "no result"}
    assert rows["metric"].isna().all()
    assert (frame["state"] != "done").sum() == 3


def test_an_axis_whose_short_name_is_taken_is_named_by_its_path() -> None:
    assert axis_columns(["method", "stages.generate.steps", "stages.pretrain.corruption.mask_ratio"]) == {
        "method": "method",
        "stages.generate.steps": "stages.generate.steps",
        "stages.pretrain.corruption.mask_ratio": "mask_ratio",
    }
    two = ["stages.pretrain.optim.beta2", "stages.finetune.optim.beta2"]
    assert axis_columns(two) == {path: path for path in two}


def test_a_fact_of_an_unexpected_kind_gets_a_column_of_its_own(tmp_path: Path) -> None:
    def odd(trial: object, stage: str, result: dict[str, object]) -> None:
        facts = result["facts"]
        assert isinstance(facts, dict)
        facts |= {"n": [1, 2], "colour": "blue"} if stage == "generate" else {}

    build_sweep(tmp_path, axes=TWO_ARMS, sets=("seeds=[0]",), edit=odd)
    row = long_frame(tmp_path, "mask_ratio").query("metric == 'fd_digits_cnn'").iloc[0]
    assert (row["n"], row["fact.n"], row["fact.colour"]) == (500, "[1, 2]", "blue")


def test_the_cost_frame_has_one_row_per_stage_of_a_trial(built: tuple[Path, SweepRecord]) -> None:
    root, record = built
    frame = cost_frame(root, "mask_ratio")
    assert len(frame) == len(record.trials) * 5
    assert frame["host"].unique().tolist() == ["a-host"]
    assert frame["seconds"].min() == 12.5
    assert (frame["peak_memory_bytes"].dtype, frame["attempts"].iloc[0]) == ("Int64", 1)


def test_reading_twice_gives_the_same_bytes(built: tuple[Path, SweepRecord]) -> None:
    root = built[0]
    assert long_frame(root, "mask_ratio").to_csv() == long_frame(root, "mask_ratio").to_csv()
    pd.testing.assert_frame_equal(cost_frame(root, "mask_ratio"), cost_frame(root, "mask_ratio"))


def test_the_error_for_an_unknown_sweep_lists_the_known_ones(built: tuple[Path, SweepRecord]) -> None:
    with pytest.raises(UserError, match=r"no sweep 'nothing'.*mask_ratio"):
        long_frame(built[0], "nothing")
