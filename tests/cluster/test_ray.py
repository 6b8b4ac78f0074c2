"""Stages on a Ray that runs already: its nodes may go, its head may go, and it is left running."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import scripted_stage
from cluster.lab import Lab, wait_for
from cluster.miniray import MiniRay, Node

import umd_bench
from umd_bench.config.errors import UserError
from umd_bench.config.ray import RayConfig
from umd_bench.orchestration.executors import Executor, Kind, ray_start, start_executor
from umd_bench.orchestration.executors.ray_start import RunningRay

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster() -> Iterator[MiniRay]:
    with MiniRay(gpus=1) as running:
        yield running


@pytest.fixture
def lab(cluster: MiniRay, tmp_path: Path) -> Iterator[Lab]:
    made = Lab("ray", tmp_path, ray=RayConfig(address=cluster.address))
    yield made
    made.close()


def test_a_stage_of_a_killed_raylet_goes_on_at_another_node(cluster: MiniRay, lab: Lab) -> None:
    second = cluster.add_node()
    [here, there] = lab.submit("sleep", "sleep")
    pids = {lab.pid(key): key for key in (here, there)}
    [lost] = [key for pid, key in pids.items() if _is_below(pid, second)]
    second.process("raylet").kill()
    ended = lab.collect([lost])[lost]
    assert ended.kind is Kind.NODE_FAIL
    assert not lab.dir(lost).is_owned()
    second.kill()
    lab.go(here, there)
    [kept] = {here, there} - {lost}
    assert lab.collect([kept])[kept].kind is None
    lab.executor.submit(lost)
    assert lab.collect([lost])[lost].kind is None
    assert lab.dir(lost).attempts() == [1, 2]
    assert lab.dir(lost).result() == {"metrics": {}}


def test_a_clusters_workers_run_the_frozen_copy_and_the_cluster_is_left_running(cluster: MiniRay, lab: Lab) -> None:
    [ended] = lab.run("say-where")
    result = lab.dir(ended.key).result()
    assert result is not None
    package = Path(result["file"])
    assert package.is_relative_to(lab.root / "jobs" / "code")
    assert package != Path(umd_bench.__file__)
    lab.close()
    assert cluster.head.process("raylet").is_running()
    assert [item.kind for item in lab.run("succeed")] == [None]


def test_shares_of_one_gpu_say_how_many_stages_run_side_by_side(cluster: MiniRay, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"room for a stage of 1 CPUs and 2 GPUs: there is 127.0.0.21 with 1 CPUs and 1 GPUs"):
        _start(tmp_path, RayConfig(address=cluster.address, gpus=2))
    executor = _start(tmp_path, RayConfig(address=cluster.address, gpus=0.5))
    try:
        assert executor.slots == 1, "the node has one core"
    finally:
        executor.close()


def test_a_node_that_does_not_see_the_results_is_named(
    cluster: MiniRay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nodes are on this machine: what the driver has written is taken away again before they look."""
    nodes = RunningRay.check_nodes

    def unshared(ray: RunningRay, root: Path, data_root: Path) -> None:
        real = os.listdir
        monkeypatch.setattr(os, "listdir", lambda path: [*real(path), "only-here"] if Path(path) == root else real(path))
        nodes(ray, root, data_root)

    monkeypatch.setattr(RunningRay, "check_nodes", unshared)
    (tmp_path / "data").mkdir()
    with pytest.raises(UserError, match=r"Ray node 127.0.0.21 does not see .* in the results folder .* nodes share"):
        start_executor("ray", tmp_path, tmp_path / "data", workers=1, threads=1, ray=RayConfig(address=cluster.address))


def test_an_address_where_no_ray_is_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing answers there"):
        _start(tmp_path, RayConfig(address="127.0.0.1:9"))


def test_a_head_that_dies_ends_the_command_with_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_start, "HEAD_LOST_SECONDS", 3.0)
    with MiniRay() as running:
        lab = Lab("ray", tmp_path, ray=RayConfig(address=running.address))
        [key] = lab.submit("sleep")
        lab.pid(key)
        running.head.process("gcs_server").kill()
        begun = time.monotonic()
        with pytest.raises(UserError, match="does not answer any more; what was done is kept"):
            lab.collect([key])
        lab.close()
        assert time.monotonic() - begun < 60
    assert lab.dir(key).result() is None
    wait_for(lambda: not lab.dir(key).is_owned(), "the lease given back")


def test_two_commands_at_once_have_a_ray_each(tmp_path: Path) -> None:
    labs = [Lab("ray", tmp_path / name) for name in ("a", "b")]
    sides = [lab.submitting_side(lab.stages("nap 1", "nap 1")) for lab in labs]
    try:
        for lab in labs:
            keys = [f"{number:016x}" for number in (1, 2)]
            wait_for(lambda lab=lab, keys=keys: all(lab.dir(key).result() for key in keys), "both results")
            assert [lab.dir(key).attempts() for key in keys] == [[1], [1]]
    finally:
        for side in sides:
            side.kill()
            side.wait()


def _start(root: Path, config: RayConfig) -> Executor:
    return start_executor("ray", root, root, workers=4, threads=1, stage=scripted_stage.NAME, ray=config)


def _is_below(pid: int, node: Node) -> bool:
    return pid in {child.pid for child in node.process("raylet").children(recursive=True)}
