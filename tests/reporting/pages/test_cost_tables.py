"""Tables of costs: shared stages count once, and pre-training is listed arm by arm."""

from __future__ import annotations

from pathlib import Path

import pytest
from reporting.built_results import TWO_ARMS, build_sweep

from umd_bench.reporting.frames.sweep_frames import cost_frame
from umd_bench.reporting.pages.cost_tables import cost_summary
from umd_bench.reporting.report import write_report
from umd_bench.reporting.statistics.summary import summarize


def test_costs_of_shared_stages_are_counted_once(tmp_path: Path) -> None:
    build_sweep(tmp_path, axes={"stages.generate.steps": [10, 25]})
    rows = cost_summary(cost_frame(tmp_path, "mask_ratio")).set_index("stage")
    assert rows["runs"].to_dict() == {"pretrain": "3", "probe": "3", "finetune": "3", "finetune_probe": "3", "generate": "6"}
    assert rows.loc["pretrain", "total seconds"] == "40.5"


@pytest.mark.slow
def test_pretraining_costs_are_listed_by_arm_and_shared_stages_once(tmp_path: Path) -> None:
    axes = {"method": ["umd", "mae"], "stages.generate.cfg_scale": [1.5, 3.0]}
    build_sweep(tmp_path, axes=axes, sets=("seeds=[0, 1]",))
    text = write_report(summarize(tmp_path, "mask_ratio"), tmp_path).cost_md.read_text()
    table = [line for line in text.partition("arm by arm")[2].splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert rows[0] == ["method", "seeds", "images", "MFLOP/image", "PFLOP", "images/s", "device-hours", "device"]
    expected = ["2", "40,960", "10", "0.0004096", "3,200", "0.00361", "A processor"]  # (12.5 + 13.5) / 2 s an hour
    assert rows[2:] == [["umd", *expected], ["mae", *expected]]


@pytest.mark.slow
def test_without_pretraining_results_there_is_no_table_by_arm(tmp_path: Path) -> None:
    trials = ("mask_ratio=0.25,seed=0", "mask_ratio=0.5,seed=0")
    build_sweep(tmp_path, axes=TWO_ARMS, sets=("seeds=[0]",), skipped=dict.fromkeys(trials, ("pretrain",)))
    assert "arm by arm" not in write_report(summarize(tmp_path, "mask_ratio"), tmp_path).cost_md.read_text()
