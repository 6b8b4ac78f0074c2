"""The decisions of ``--fuse``, from measured gains, and the lines that explain them."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from orchestration.small import SMALL, write_small
from orchestration.small_units import seeds_of_one_shape
from rich.console import Console

from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Sweep, load_sweep
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.trial import Resources
from umd_bench.data.packs.manifest import data_root
from umd_bench.orchestration.fusion import measure
from umd_bench.orchestration.fusion.measure import measured_gain, ratios_of
from umd_bench.orchestration.fusion.option import check_fuse, planned_lines
from umd_bench.orchestration.fusion.policy import FusionGroup, Gain, choose_groups, fusion_groups
from umd_bench.orchestration.graph import Node
from umd_bench.orchestration.launch import Site, execute, prepare
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid
from umd_bench.store import RunDir, StageState

CLEAR, UNCLEAR, SLOWER = Gain(1.2, 1.1, 1.3), Gain(1.05, 0.98, 1.1), Gain(0.85, 0.83, 0.88)


def sweep_of(folder: Path) -> Sweep:
    return load_sweep(
        write_small(folder, SMALL.replace("mask_ratio: [0.25, 0.5]", "mask_ratio: [0.25]")), sets=["seeds=[0, 1, 2]"]
    )


def nodes_of(specs: list[StageSpec], state: StageState = StageState.NEW) -> list[Node]:
    return [Node(spec, "pretrain", state) for spec in specs]


def test_every_worker_gets_a_group_of_the_stages_without_a_result(tmp_path: Path) -> None:
    specs = seeds_of_one_shape(tmp_path, 5)
    sizes = [[group.size for group in fusion_groups(nodes_of(specs), workers)] for workers in (1, 2, 4, 5)]
    assert sizes == [[5], [3], [2], []]
    done = nodes_of(specs[:3], StageState.DONE) + nodes_of(specs[3:])
    assert [len(group.specs) for group in fusion_groups(done, 1)] == [2]
    spread = [spec.model_copy(update={"resources": Resources(devices=2)}) for spec in specs]
    assert fusion_groups(nodes_of(spread), 1) == []
    many = [spec.model_copy(update={"seed": seed}) for seed in range(40) for spec in specs[:1]]
    assert [group.size for group in fusion_groups(nodes_of(many), 1)] == [16]


@pytest.mark.parametrize(
    ("mode", "gain", "fused", "reason"),
    [
        ("auto", CLEAR, True, "1.20 times as fast as alone (1.10 to 1.30), fused"),
        ("auto", UNCLEAR, False, "not clearly faster here: 1.05 times as fast as alone (0.98 to 1.10), not fused"),
        ("auto", SLOWER, False, "not clearly faster here: 0.85 times as fast as alone (0.83 to 0.88), not fused"),
        ("auto", None, False, "not fused, because the measurement failed or took too long"),
        ("on", SLOWER, True, "fused, since --fuse is on"),
    ],
)
def test_stages_are_fused_if_the_whole_interval_of_the_gain_is_above_one(
    mode: str, gain: Gain | None, fused: bool, reason: str, tmp_path: Path
) -> None:
    measured: list[FusionGroup] = []
    fusion = choose_groups(nodes_of(seeds_of_one_shape(tmp_path, 5)), 2, mode, lambda group: measured.append(group) or gain)
    assert list(fusion.sizes.values()) == ([3] if fused else [])
    assert fusion.lines == [f"5 stages of digits pretrain, up to 3 in one process: {reason}"]
    assert len(measured) == (mode == "auto")


def test_a_line_explains_why_nothing_is_fused(tmp_path: Path) -> None:
    fusion = choose_groups(nodes_of(seeds_of_one_shape(tmp_path, 2)), 2, "on", lambda group: CLEAR)
    assert fusion.sizes == {}
    assert fusion.lines == [
        "no stages are fused: no shape has more than 2 unfinished stages, so each can have a worker of its own"
    ]
    compiled = [spec.model_copy(update={"resources": Resources(compile=True)}) for spec in seeds_of_one_shape(tmp_path, 5)]
    fusion = choose_groups(nodes_of(compiled), 2, "on", lambda group: CLEAR)
    assert fusion.lines == [
        "no stages are fused: compiled stages (resources.compile) are trained alone, and among the others no shape has more "
        "than 2 unfinished stages, so each can have a worker of its own"
    ]


def test_mode_on_is_refused_if_nothing_can_be_fused_and_auto_is_accepted() -> None:
    for on, searching, joined, why in (
        ("slurm", False, False, "a job trains one stage: expected --on inline or --on ray, found --on slurm"),
        ("submitit-local", False, False, "a job trains one stage"),
        ("ray", True, False, "a search suggests its trials"),
        ("ray", False, True, "a Ray of another command"),
    ):
        with pytest.raises(UserError, match=f"--fuse on is not accepted: .*{why}"):
            check_fuse("on", on, searching=searching, joined=joined)
        check_fuse("auto", on, searching=searching, joined=joined)
    check_fuse("on", "inline")
    with pytest.raises(UserError, match=r"--fuse 'always' is not accepted: .*auto, off, on"):
        check_fuse("always", "ray")


def test_a_gain_is_measured_again_only_if_something_that_it_depends_on_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = seeds_of_one_shape(tmp_path, 4)
    measured: list[int] = []

    def side_by_side(request: str, workers: int) -> list[float]:
        measured.append(len(json.loads(request)["specs"]))
        return [1.1, 1.2, 1.3, 1.2, 1.1]

    monkeypatch.setattr(measure, "_side_by_side", side_by_side)
    [group] = fusion_groups(nodes_of(specs), 1)
    gain = measured_gain(tmp_path, group, 1, data_root())
    assert gain is not None
    assert gain.median == 1.2
    assert measured_gain(tmp_path, group, 1, data_root()) == gain
    assert measured == [4]
    measured_gain(tmp_path, group, 2, data_root())
    [fewer] = fusion_groups(nodes_of(specs), 2)
    measured_gain(tmp_path, fewer, 2, data_root())
    assert measured == [4, 4, 2]
    monkeypatch.setattr(measure, "_side_by_side", lambda request, workers: [1.1] * 4)
    assert measured_gain(tmp_path, fewer, 3, data_root()) is None  # too few rounds, so nothing is cached
    assert len(list((tmp_path / "fusing" / "measured").iterdir())) == 3


def test_plan_prints_cached_gains_and_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = nodes_of(seeds_of_one_shape(tmp_path, 4))
    assert planned_lines("off", tmp_path, nodes, 1) == []
    start = "4 stages of digits pretrain, up to 4 in one process: "
    assert planned_lines("on", tmp_path, nodes, 1) == [start + "fused, since --fuse is on"]
    assert planned_lines("auto", tmp_path, nodes, 1) == [start + "fused if a measurement finds that faster"]
    monkeypatch.setattr(measure, "_side_by_side", lambda request, workers: [1.2] * 5)
    measured_gain(tmp_path, fusion_groups(nodes, 1)[0], 1, data_root())
    assert planned_lines("auto", tmp_path, nodes, 1) == [start + "1.20 times as fast as alone (1.20 to 1.20), fused"]


def test_a_gain_is_measured_for_stages_whose_parent_has_not_run_yet(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path)
    prepare(sweep.trials, Site(tmp_path / "results", data_root(), "inline"))
    specs = [trial.specs["finetune"].model_copy(update={"parent_key": None}) for trial in sweep.trials]
    ratios = ratios_of(specs, data_root(), seconds=0.2)
    assert ratios
    assert all(ratio > 0 for ratio in ratios)


def run(sweep: Sweep, root: Path, fuse: str) -> str:
    output = io.StringIO()
    site = Site(root, data_root(), "inline", fuse=fuse)
    progress = execute(Scheduler(site.results, Grid(prepare(sweep.trials, site))), site, Console(file=output, width=200))
    assert progress.complete
    return output.getvalue()


def fused_stages(sweep: Sweep, root: Path) -> set[str]:
    """Names of the stages that were fused."""
    found = set()
    for trial in sweep.trials:
        for name, spec in trial.specs.items():
            result = RunDir(root, spec.key).result()
            assert result is not None
            if "fused" in result["environment"]:
                found.add(name)
    return found


@pytest.mark.slow
def test_stages_of_a_sweep_are_fused_if_that_is_faster_and_trained_alone_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = sweep_of(tmp_path)
    monkeypatch.setattr(measure, "_side_by_side", lambda request, workers: [1.2] * 5)
    output = run(sweep, tmp_path / "faster", "auto")
    assert "3 stages of digits pretrain, up to 3 in one process: 1.20 times as fast as alone (1.20 to 1.20), fused" in output
    assert fused_stages(sweep, tmp_path / "faster") == {"pretrain", "finetune"}
    monkeypatch.setattr(measure, "_side_by_side", lambda request, workers: [0.85] * 5)
    assert "not clearly faster here: 0.85 times" in run(sweep, tmp_path / "slower", "auto")
    assert fused_stages(sweep, tmp_path / "slower") == set()
