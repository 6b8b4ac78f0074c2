"""A real training on two devices: as a job of two Slurm tasks and as a local job, with one rank killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import psutil
import pytest
from cluster.lab import CLUSTER, query_often, wait_for
from cluster.minislurm import MiniSlurm
from orchestration.small import write_small

from umd_bench.config.errors import UserError
from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.config.sweep.resolve import Trial, load_sweep
from umd_bench.data.packs.manifest import data_root
from umd_bench.orchestration.executors.contract import Executor
from umd_bench.orchestration.executors.jobs.queues.slurm import SlurmQueue
from umd_bench.orchestration.executors.registry import start_executor
from umd_bench.orchestration.graph import Node, build_graph
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.stage_process.run_stage import run_stage
from umd_bench.orchestration.trial_source import Grid, SweepProgress
from umd_bench.store import RunDir

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    folder = tmp_path_factory.mktemp("sweep")
    sets = ["trial.resources.devices=2", "seeds=[0]", "axes={}", "trial.stages.pretrain.nimg=4800"]
    return load_sweep(write_small(folder), sets=sets).trials[0]


@pytest.fixture(scope="module")
def whole(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """The same stage, in which no rank is lost; rank 0 starts the other rank."""
    run = RunDir(tmp_path_factory.mktemp("whole"), trial.specs["pretrain"].key)
    run.prepare(trial.specs["pretrain"])
    run_stage(run.root, run.key, data_root())
    return run


def start(name: str, root: Path, **fields: object) -> Executor:
    cluster = ClusterConfig.model_validate({**CLUSTER.model_dump(exclude={"time"}), "time": "5m", **fields})
    executor = start_executor(name, root, data_root(), workers=1, threads=1, devices=2, cluster=cluster)
    return query_often(executor)


def nodes_of(root: Path, trial: Trial) -> dict[str, Node]:
    """The training, and a probe of it on one device."""
    names = {trial.specs[name].key for name in ("pretrain", "probe")}
    nodes = {key: node for key, node in build_graph(root, [trial]).items() if key in names}
    nodes[trial.specs["pretrain"].key].children = [trial.specs["probe"].key]
    return nodes


def processes_of_rank_1(run: RunDir) -> list[psutil.Process]:
    """The processes of rank 1, started by Slurm or by rank 0; none before the stage has saved its state."""
    if not list(run.path.glob("attempt-1/checkpoints/*.sha256")):
        return []
    found = []
    for process in psutil.process_iter():
        try:
            command, environment = process.cmdline(), process.environ()
        except psutil.Error:
            continue
        of_slurm = environment.get("SLURM_PROCID") == "1" and str(run.root.resolve()) in " ".join(command)
        local = "umd_bench.orchestration.stage_process.ranks" in command and command[-1] == "1" and process.cwd() == os.getcwd()  # noqa: PTH109
        if "python" in command[0] and (of_slurm or local):
            found.append(process)
    return found


def assert_same_result(ours: RunDir, theirs: RunDir) -> None:
    first, second = ours.result(), theirs.result()
    assert first is not None
    assert second is not None
    assert first["environment"]["world_size"] == 2
    assert first["exact"]
    assert first["metrics"] == second["metrics"]
    assert ours.snapshot(4800).read_bytes()[-4096:] == theirs.snapshot(4800).read_bytes()[-4096:]


@pytest.mark.parametrize(("name", "nodes"), [("slurm", 2), ("submitit-local", 1)])
def test_a_stage_on_two_devices_survives_the_loss_of_one_and_ends_with_the_same_bits(
    name: str,
    nodes: int,
    trial: Trial,
    whole: RunDir,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name == "slurm":
        request.getfixturevalue("slurm")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    run = RunDir(tmp_path, whole.key)
    executor = start(name, tmp_path, nodes=nodes)
    killed: list[int] = []

    def kill_once(progress: SweepProgress) -> None:
        if not killed and (found := processes_of_rank_1(run)):
            found[0].send_signal(signal.SIGKILL)
            killed.append(found[0].pid)

    try:
        progress = Scheduler(tmp_path, Grid(nodes_of(tmp_path, trial)), poll_seconds=0.05).run(executor, observe=kill_once)
    finally:
        executor.close()
    assert killed
    assert progress.complete, progress.failures
    assert run.attempts() == [1, 2]
    [*_, died] = run.events(1)
    assert died["state"] == "died"
    assert_same_result(run, whole)


def test_a_job_keeps_the_number_of_devices_it_was_submitted_with(
    slurm: MiniSlurm, trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    executor = start("slurm", tmp_path, gpus=1, nodes=2)
    try:
        run = RunDir(tmp_path, trial.specs["pretrain"].key)
        run.prepare(trial.specs["pretrain"])
        executor.submit(run.key)
        executor.poll(0)
        if not run.is_owned():
            run.prepare(trial.specs["pretrain"].on_devices(3))
        shown = slurm.run("scontrol", "show", "job").stdout
        assert "NumNodes=2" in shown
        assert "NumTasks=2" in shown
        assert "gres/gpu=2" in shown or "gpu:1" in shown
        wait_for(lambda: bool(executor.poll(0.2)), "the end of the job")
    finally:
        executor.close()
    assert run.config().devices == 3
    assert (run.result() or {})["environment"]["world_size"] == 2


def test_nodes_that_do_not_divide_the_devices_are_refused(slurm: MiniSlurm) -> None:
    queue = SlurmQueue(ClusterConfig.model_validate({"time": "5m", "nodes": 2}), threads=1)
    with pytest.raises(UserError, match=r"nodes = 2 is not accepted: expected a divisor of resources\.devices = 3"):
        queue.check(3)
    assert slurm.jobs() == {}
