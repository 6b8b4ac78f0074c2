"""The graph of a sweep: trials share nodes, and a node keeps the snapshots that any of its trials needs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from orchestration.scripted import ScriptedExecutor
from orchestration.small import SMALL, write_small

from umd_bench.config.sweep.resolve import Trial, load_sweep
from umd_bench.data.packs.manifest import data_root
from umd_bench.orchestration.forecast.plan_report import plan_table, planned_stages
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.stage_process.run_stage import run_stage
from umd_bench.orchestration.trial_source import Grid
from umd_bench.store import RunDir, StageState, stage_state

CURVE = SMALL.replace(
    "  stages.pretrain.corruption.mask_ratio: [0.25, 0.5]\nseeds: [0, 1]",
    "  stages.finetune_probe.snapshot: [0.2, 0.6, 1.0]\nseeds: [0]\nstages: [finetune_probe]",
)


def trials(folder: Path, values: str = "[0.2, 0.6, 1.0]") -> tuple[Trial, ...]:
    return load_sweep(write_small(folder, CURVE.replace("[0.2, 0.6, 1.0]", values))).trials


def named(nodes: dict[str, Node], name: str) -> list[Node]:
    return [node for node in nodes.values() if node.name == name]


def work(root: Path, nodes: dict[str, Node]) -> None:
    """Run the stages one after the other, as a scheduler would."""
    for node in nodes.values():
        if node.state is not StageState.DONE:
            RunDir(root, node.key).prepare(node.spec)
            run_stage(root, node.key, data_root())


def test_a_curve_is_one_training_stage_and_one_probe_for_each_point(tmp_path: Path) -> None:
    nodes = build_graph(tmp_path, trials(tmp_path))
    finetune, probes = named(nodes, "finetune"), named(nodes, "finetune_probe")
    assert [node.spec.snapshots for node in finetune] == [(64, 192)]  # 0.2 and 0.6 of 320; the last snapshot is always kept
    assert [node.spec.parent_nimg for node in probes] == [64, 192, 320]
    assert [node.spec.snapshots for node in named(nodes, "pretrain")] == [()]


@pytest.mark.slow
def test_a_finished_stage_trains_again_only_up_to_a_new_snapshot_and_keeps_its_result(tmp_path: Path) -> None:
    root = tmp_path / "results"
    work(root, build_graph(root, trials(tmp_path, "[1.0]")))
    key = named(build_graph(root, trials(tmp_path, "[1.0]")), "finetune")[0].key
    run = RunDir(root, key)
    first, weights = run.result(), run.snapshot(320).read_bytes()

    nodes = build_graph(root, trials(tmp_path))
    assert {node.name: node.state for node in nodes.values() if node.name != "finetune_probe"} == {
        "pretrain": StageState.DONE,
        "finetune": StageState.INTERRUPTED,
    }
    console_rows = plan_table(planned_stages(root, nodes))
    assert "it has a result, but no snapshot at nimg = 64, 192" in [str(c) for c in console_rows.columns[4].cells]
    work(root, nodes)
    assert run.result() == first
    assert run.snapshot(320).read_bytes() == weights
    assert run.attempts() == [1, 2]
    seen = [event["nimg"] for event in run.events(2) if event["event"] == "metrics"]
    assert max(seen) == 192
    assert run.config().snapshots == (64, 192)
    again = build_graph(root, trials(tmp_path))
    assert {node.state for node in again.values()} == {StageState.DONE}
    # weights that no stage reads any more may be removed
    run.snapshot(64).unlink()
    assert {node.state for node in build_graph(root, trials(tmp_path)).values()} == {StageState.DONE}


@pytest.mark.slow
def test_a_snapshot_added_later_has_the_same_bits(tmp_path: Path) -> None:
    late, early = tmp_path / "late", tmp_path / "early"
    work(late, build_graph(late, trials(tmp_path, "[1.0]")))
    work(late, build_graph(late, trials(tmp_path, "[0.6]")))
    nodes = build_graph(early, trials(tmp_path, "[0.6]"))
    work(early, nodes)
    probe = named(nodes, "finetune_probe")[0].key
    results = [json.loads((root / "stages" / probe / "result.json").read_text())["metrics"] for root in (late, early)]
    assert results[0] == results[1]


def test_a_stage_with_a_result_but_without_its_snapshots_runs_again(tmp_path: Path) -> None:
    nodes = build_graph(tmp_path, trials(tmp_path))
    finetune = named(nodes, "finetune")[0]

    def with_snapshots(run: RunDir, tries: int) -> None:
        for nimg in run.config().snapshots if tries else ():
            run.snapshot(nimg).parent.mkdir(exist_ok=True)
            run.snapshot(nimg).touch()
        with run.begin() as attempt:
            attempt.finish({"metrics": {}})

    executor = ScriptedExecutor(tmp_path, {finetune.key: with_snapshots})
    progress = Scheduler(tmp_path, Grid(nodes), poll_seconds=0).run(executor)
    assert progress.complete
    assert executor.submitted.count(finetune.key) == 2
    assert stage_state(RunDir(tmp_path, finetune.key), [64, 192]) is StageState.DONE


def test_preparing_a_stage_keeps_the_snapshots_of_earlier_commands(tmp_path: Path) -> None:
    for values in ("[0.2]", "[0.6]"):
        finetune = named(build_graph(tmp_path, trials(tmp_path, values)), "finetune")[0]
        RunDir(tmp_path, finetune.key).prepare(finetune.spec)
    assert RunDir(tmp_path, finetune.key).config().snapshots == (64, 192)


@pytest.mark.parametrize("value", ["64", "0.2"])
def test_a_snapshot_given_in_images_or_as_a_share_gives_the_same_stage(tmp_path: Path, value: str) -> None:
    first, second = (named(build_graph(tmp_path, trials(tmp_path, f"[{v}]")), "finetune_probe") for v in (value, "0.2"))
    assert first[0].key == second[0].key
