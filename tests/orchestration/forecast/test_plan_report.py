"""The report of a plan: whether a stage is reused, resumed or new, and in which field a new one differs from past results."""

from __future__ import annotations

import re
from pathlib import Path

from orchestration.scripted import ScriptedExecutor
from rich.console import Console

from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration.forecast.plan_report import plan_counts, plan_json, plan_table, planned_stages
from umd_bench.orchestration.graph import build_graph
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid
from umd_bench.store.run import Failure, RunDir

SWEEPS = Path(__file__).parents[3] / "sweeps"
RATIOS = "axes.stages.pretrain.corruption.mask_ratio"


def test_the_plan_names_the_reused_stages_and_the_field_that_differs(tmp_path: Path) -> None:
    finished = load_sweep(SWEEPS / "mask_ratio.yaml", sets=["seeds=[0, 1]", f"{RATIOS}=[0.25, 0.5]", "report.baseline=null"])
    Scheduler(tmp_path, Grid(build_graph(tmp_path, finished.trials)), poll_seconds=0).run(ScriptedExecutor(tmp_path))
    wider = load_sweep(SWEEPS / "mask_ratio.yaml", sets=["seeds=[0]", f"{RATIOS}=[0.25, 0.375]"])
    console = Console(width=220, record=True, file=(tmp_path / "out").open("w"))
    planned = planned_stages(tmp_path, build_graph(tmp_path, wider.trials))
    console.print(plan_table(planned), plan_counts(planned))
    text = console.export_text()
    assert "6 new, 6 reused" in text
    assert re.search(r"corruption\.mask_ratio 0\.(25|5) -> 0\.375", text)  # two results are equally near
    assert "its pretrain is new" in text
    stages = {stage["key"]: stage for stage in plan_json(planned)}
    assert sorted(stage["what"] for stage in stages.values()) == ["new"] * 6 + ["reused"] * 6
    assert all(stage["why"] == "" for stage in stages.values() if stage["what"] == "reused")
    assert all(stages[stage["parent"]]["kind"] != "probe" for stage in stages.values() if stage["parent"] is not None)


def test_a_stage_that_failed_is_resumed_and_the_plan_says_by_what_it_failed(tmp_path: Path) -> None:
    sweep = load_sweep(SWEEPS / "mask_ratio.yaml", sets=["seeds=[0]", f"{RATIOS}=[0.375]", "stages=[pretrain]"])
    (node,) = build_graph(tmp_path, sweep.trials).values()
    run = RunDir(tmp_path, node.key)
    run.prepare(node.spec)
    with run.begin() as attempt:
        attempt.fail(Failure(state="oom", message="out of memory\nat batch 32", fingerprint="oom"))
    (planned,) = planned_stages(tmp_path, build_graph(tmp_path, sweep.trials))
    assert (planned.what, planned.why) == ("resumed", "it failed: out of memory")
