"""Stages on a Ray cluster that runs already: lost nodes, a lost head, shares of GPUs, and a cluster that is left running."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
import torch
from cluster import scripted_stage
from cluster.lab import Lab, wait_for
from cluster.miniray import MiniRay
from cluster.miniray import Node as RayNode
from safetensors.torch import load_file

import umd_bench
from umd_bench.config.errors import UserError
from umd_bench.config.launch.ray import RayConfig
from umd_bench.config.sweep.resolve import load_trial
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.orchestration.executors.contract import EndReason, Executor
from umd_bench.orchestration.executors.ray import running_ray
from umd_bench.orchestration.executors.ray.nodes import room_on_nodes
from umd_bench.orchestration.executors.ray.running_ray import RunningRay
from umd_bench.orchestration.executors.registry import start_executor
from umd_bench.orchestration.graph import Node
from umd_bench.orchestration.preflight import prepare_data
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.trial_source import Grid, SweepProgress
from umd_bench.store import RunDir, StageState

pytestmark = pytest.mark.slow
TINY = [
    "model.width=16", "model.depth=1", "model.decoder_depth=1", "model.heads=2",
    "stages.pretrain.batch=64", "stages.pretrain.nimg=51200", "stages.pretrain.checkpoint_every_nimg=1280",
]  # fmt: skip


@pytest.fixture(scope="module")
def cluster() -> Iterator[MiniRay]:
    with MiniRay(gpus=1) as running:
        yield running


@pytest.fixture
def lab(cluster: MiniRay, tmp_path: Path) -> Iterator[Lab]:
    made = Lab("ray", tmp_path, ray=RayConfig(address=cluster.address, gpus=0))
    yield made
    made.close()


def test_a_training_whose_raylet_is_killed_continues_elsewhere_to_the_same_bits(cluster: MiniRay, tmp_path: Path) -> None:
    data = Path(os.environ["UMD_BENCH_DATA"])
    trials = [load_trial("umd", tier="digits", sets=[*TINY, f"seed={seed}"]) for seed in (0, 1)]
    prepare_data(trials, data)
    specs = [trial.specs["pretrain"] for trial in trials]
    root, second = tmp_path / "ray", cluster.add_node()
    killed: list[str] = []

    def kill_once(progress: SweepProgress) -> None:
        for spec in specs:
            run = RunDir(root, spec.key)
            pids = [event["pid"] for event in run.events() if "pid" in event]
            trained = any(run.attempt_path(1).glob("checkpoints/*"))
            if not killed and trained and run.result() is None and _is_below(pids[-1], second):
                second.process("raylet").kill()
                killed.append(spec.key)

    executor = start_executor("ray", root, data, workers=2, threads=1, ray=RayConfig(address=cluster.address, gpus=0))
    try:
        assert executor.slots == 2
        scheduler = Scheduler(root, Grid(_nodes(specs)), poll_seconds=0.1)
        ended = scheduler.run(executor, observe=kill_once)
    finally:
        executor.close()
        second.kill()
    assert ended.complete
    assert [spec.key for spec in specs if len(RunDir(root, spec.key).attempts()) > 1] == killed != []
    assert scheduler._lost == {(killed[0], EndReason.NODE_FAIL): 1}
    alone = start_executor("inline", tmp_path / "inline", data, workers=1, threads=1)
    assert Scheduler(tmp_path / "inline", Grid(_nodes(specs))).run(alone).complete
    for spec in specs:
        there, here = RunDir(root, spec.key), RunDir(tmp_path / "inline", spec.key)
        nimg = spec.stage.nimg if isinstance(spec.stage, TrainStage) else 0
        weights = [load_file(run.snapshot(nimg)) for run in (there, here)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])
        results = there.result(), here.result()
        assert results[0] is not None
        assert results[1] is not None
        assert results[0]["metrics"] == results[1]["metrics"]


def test_a_clusters_workers_run_the_frozen_copy_and_the_cluster_is_left_running(cluster: MiniRay, lab: Lab) -> None:
    [ended] = lab.run("say-where")
    result = lab.dir(ended.key).result()
    assert result is not None
    package = Path(result["file"])
    assert package.is_relative_to(lab.root / "jobs" / "code")
    assert package != Path(umd_bench.__file__)
    lab.close()
    assert cluster.head.process("raylet").is_running()
    assert [item.reason for item in lab.run("succeed")] == [None]


def test_more_gpus_per_stage_than_a_node_has_are_refused(cluster: MiniRay, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"room for a stage of 1 CPUs and 2 GPUs: there is 127.0.0.21 with 1 CPUs and 1 GPUs"):
        _start(tmp_path, RayConfig(address=cluster.address, gpus=2))


def test_a_cluster_with_gpus_requires_gpus_per_stage(cluster: MiniRay, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"127.0.0.21 with 1 CPUs and 1 GPUs, and .*expected --gpus-per-stage, such as 1.*or 0"):
        _start(tmp_path, RayConfig(address=cluster.address))


def test_a_stage_with_a_share_of_a_gpu_runs(cluster: MiniRay, tmp_path: Path) -> None:
    lab = Lab("ray", tmp_path, ray=RayConfig(address=cluster.address, gpus=0.25))
    try:
        assert [item.reason for item in lab.run("succeed", "succeed")] == [None, None]
    finally:
        lab.close()


@pytest.mark.parametrize(
    ("threads", "gpus", "room"),
    [(1, 0, 20), (4, 0, 5), (1, 0.25, 8), (1, 0.3, 6), (1, 1, 2), (8, 0.5, 2), (1, 2, 1), (1, 4, 0)],
)
def test_room_counts_the_stages_that_fit_on_each_node(
    threads: int, gpus: float, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = [{"Alive": True, "Resources": {"CPU": 16.0, "GPU": 2.0}}, {"Alive": True, "Resources": {"CPU": 4.0}}]
    monkeypatch.setattr(ray, "nodes", lambda: [*nodes, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}])
    assert room_on_nodes(threads, gpus) == room


def test_the_error_names_a_node_that_does_not_see_the_results_folder(
    cluster: MiniRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All nodes are on this machine and see the folder, so a patch makes the command list one more file in it than they do."""
    check_nodes = RunningRay.check_nodes

    def unshared(running: RunningRay, root: Path, data_root: Path) -> None:
        real = os.listdir
        monkeypatch.setattr(os, "listdir", lambda path: [*real(path), "only-here"] if Path(path) == root else real(path))
        check_nodes(running, root, data_root)

    monkeypatch.setattr(RunningRay, "check_nodes", unshared)
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=r"Ray node 127.0.0.21 does not see .* in the results folder .* nodes share"):
        start_executor("ray", tmp_path, tmp_path / "data", workers=1, threads=1, ray=RayConfig(address=cluster.address, gpus=0))


def test_auto_means_the_ray_that_ray_start_started_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    with pytest.raises(UserError, match="expected a Ray that `ray start` has started here"):
        _start(tmp_path, RayConfig(address="auto"))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    with pytest.raises(UserError, match=r"auto \(127.0.0.1:9\): nothing answers there"):
        _start(tmp_path, RayConfig(address="auto"))


def test_an_address_without_a_ray_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing answers there"):
        _start(tmp_path, RayConfig(address="127.0.0.1:9"))


def test_a_lost_head_ends_the_command_with_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running_ray, "HEAD_LOST_SECONDS", 3.0)
    with MiniRay() as running:
        lab = Lab("ray", tmp_path, ray=RayConfig(address=running.address))
        [key] = lab.submit("sleep")
        lab.pid(key)
        running.head.process("gcs_server").kill()
        begun = time.monotonic()
        with pytest.raises(UserError, match="does not answer any more; finished stages"):
            lab.collect([key])
        lab.close()
        assert time.monotonic() - begun < 60
    assert lab.dir(key).result() is None
    wait_for(lambda: not lab.dir(key).is_owned(), "the end of the stage's lease")


def test_two_commands_at_once_each_have_a_private_ray(tmp_path: Path) -> None:
    labs = [Lab("ray", tmp_path / name) for name in ("a", "b")]
    commands = [lab.command(lab.stages("nap 1", "nap 1")) for lab in labs]
    try:
        for lab in labs:
            keys = [f"{number:016x}" for number in (1, 2)]
            wait_for(lambda lab=lab, keys=keys: all(lab.dir(key).result() for key in keys), "both results")
            assert [lab.dir(key).attempts() for key in keys] == [[1], [1]]
    finally:
        for command in commands:
            command.kill()
            command.wait()


def _nodes(specs: list[StageSpec]) -> dict[str, Node]:
    return {spec.key: Node(spec, "pretrain", StageState.NEW, [f"seed={spec.seed}"]) for spec in specs}


def _start(root: Path, config: RayConfig) -> Executor:
    return start_executor("ray", root, root, workers=4, threads=1, entry_point=scripted_stage.NAME, ray=config)


def _is_below(pid: int, node: RayNode) -> bool:
    return pid in {child.pid for child in node.process("raylet").children(recursive=True)}
