"""A stage on two devices: its processes, and the loss of one of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
import torch.distributed as dist
from orchestration.small import write_small
from torch.distributed import HashStore, TCPStore

from umd_bench.config.sweep.resolve import Trial, load_sweep
from umd_bench.data.packs.manifest import data_root
from umd_bench.engine.training import parallel
from umd_bench.engine.training.parallel import RankLost
from umd_bench.orchestration import launch
from umd_bench.orchestration.executors.jobs import job_main
from umd_bench.orchestration.executors.jobs.records import Batch, JobRecords
from umd_bench.orchestration.executors.ray.actor import StageActor
from umd_bench.orchestration.executors.registry import start_executor
from umd_bench.orchestration.graph import build_graph
from umd_bench.orchestration.launch import Site
from umd_bench.orchestration.scheduler import Scheduler
from umd_bench.orchestration.stage_process import ranks
from umd_bench.orchestration.stage_process.entry_point import Outcome, RankLaunch
from umd_bench.orchestration.stage_process.run_stage import run_stage
from umd_bench.orchestration.trial_source import Grid, SweepProgress
from umd_bench.store import RunDir, StageState, stage_state
from umd_bench.store.files import write_yaml

DEADLINE_SECONDS = 60.0


def trial_on(devices: int, folder: Path) -> Trial:
    sets = [f"trial.resources.devices={devices}", "seeds=[0]", "axes={}"]
    return load_sweep(write_small(folder), sets=sets).trials[0]


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Trial:
    return trial_on(2, tmp_path_factory.mktemp("sweep"))


@pytest.fixture(scope="module")
def whole(trial: Trial, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """An uninterrupted run on two devices."""
    run = prepared(tmp_path_factory.mktemp("whole"), trial)
    assert run_stage(run.root, run.key, data_root()) is Outcome.DONE
    return run


def prepared(root: Path, trial: Trial) -> RunDir:
    run = RunDir(root, trial.specs["pretrain"].key)
    run.prepare(trial.specs["pretrain"])
    return run


def other_ranks() -> list[psutil.Process]:
    """Child processes that are ranks of a stage."""
    return [p for p in psutil.Process().children() if "umd_bench.orchestration.stage_process.ranks" in p.cmdline()]


def same_end(ours: RunDir, theirs: RunDir) -> None:
    first, second = ours.result(), theirs.result()
    assert first is not None
    assert second is not None
    assert first["metrics"] == second["metrics"]
    assert first["exact"]
    assert ours.snapshot(640).read_bytes()[-4096:] == theirs.snapshot(640).read_bytes()[-4096:]


@pytest.mark.slow
def test_the_number_of_devices_is_recorded_and_is_not_part_of_the_key(whole: RunDir, trial: Trial, tmp_path: Path) -> None:
    alone = trial_on(1, tmp_path)
    assert {name: spec.key for name, spec in alone.specs.items()} == {name: spec.key for name, spec in trial.specs.items()}
    assert {name: spec.devices for name, spec in trial.specs.items() if spec.devices > 1} == {"pretrain": 2, "finetune": 2}
    result = whole.result()
    assert result is not None
    assert result["environment"]["world_size"] == 2
    assert result["exact"] is True
    one = prepared(tmp_path, alone)
    run_stage(tmp_path, one.key, data_root())
    other = one.result()
    assert other is not None
    assert other["environment"]["world_size"] == 1
    assert result["metrics"] == pytest.approx(other["metrics"], rel=1e-4)
    assert other_ranks() == []


@pytest.mark.slow
def test_the_scheduler_repeats_a_stage_whose_rank_was_killed_and_the_bits_are_the_same(
    whole: RunDir, trial: Trial, tmp_path: Path
) -> None:
    run = RunDir(tmp_path, whole.key)
    killed_at: list[float] = []

    def kill_one() -> None:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while time.monotonic() < deadline:
            if list(run.path.glob("attempt-1/checkpoints/*.sha256")) and (found := other_ranks()):
                found[0].send_signal(signal.SIGKILL)
                killed_at.append(time.time())
                return
            time.sleep(0.001)

    nodes = {node.key: node for node in build_graph(tmp_path, [trial]).values() if node.key == run.key}
    nodes[run.key].children.clear()
    executor = start_executor("inline", tmp_path, data_root(), workers=1, threads=1)
    killer = threading.Thread(target=kill_one)
    killer.start()
    try:
        progress = Scheduler(tmp_path, Grid(nodes)).run(executor)
    finally:
        killer.join()
        executor.close()
    assert killed_at, "nothing was killed"
    assert progress.complete
    assert run.attempts() == [1, 2]
    [*_, died] = run.events(1)
    assert died["state"] == "died"
    assert "rank 1 was ended by SIGKILL" in died["message"]
    assert died["time"] - killed_at[0] < 10
    assert any(event["event"] == "resumed" for event in run.events(2))
    same_end(run, whole)
    assert other_ranks() == []


@pytest.mark.slow
def test_a_stage_on_two_ray_actors_survives_the_loss_of_one_and_ends_with_the_same_bits(
    whole: RunDir, trial: Trial, tmp_path: Path
) -> None:
    run = RunDir(tmp_path, whole.key)
    killed: list[int] = []

    def kill_once(progress: SweepProgress) -> None:
        """Kill the second actor once the first has saved its state."""
        owner = next((event["pid"] for event in run.events(1) if "pid" in event), None)
        if killed or owner is None or not list(run.path.glob("attempt-1/checkpoints/*.sha256")):
            return
        children = psutil.Process().children(recursive=True)
        actors = [p for p in children if StageActor.__name__ in f"{p.name()} {' '.join(p.cmdline())}"]
        other = next(p for p in actors if p.pid != owner)
        other.kill()
        killed.append(other.pid)

    executor = start_executor("ray", tmp_path, data_root(), workers=1, threads=1, devices=2)
    try:
        assert executor.slots == 1, "two actors are one stage"
        nodes = {node.key: node for node in build_graph(tmp_path, [trial]).values() if node.name in ("pretrain", "probe")}
        nodes[run.key].children = [trial.specs["probe"].key]
        progress = Scheduler(tmp_path, Grid(nodes), poll_seconds=0.02).run(executor, observe=kill_once)
    finally:
        executor.close()
    assert killed
    assert progress.complete, progress.failures
    assert run.attempts() == [1, 2]
    [*_, died] = run.events(1)
    assert died["state"] == "died"
    same_end(run, whole)


@pytest.mark.slow
def test_ranks_do_not_outlive_a_killed_rank_0(tmp_path: Path) -> None:
    sets = ["trial.resources.devices=2", "seeds=[0]", "axes={}", "trial.stages.pretrain.nimg=640000"]
    run = prepared(tmp_path, load_sweep(write_small(tmp_path), sets=sets).trials[0])
    module = "umd_bench.orchestration.stage_process.run_stage"
    code = f"from pathlib import Path; from {module} import run_stage; "
    code += f"run_stage(Path({str(tmp_path)!r}), {run.key!r}, Path({str(data_root())!r}))"
    process = psutil.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"})
    others: list[psutil.Process] = []
    try:
        wait_for(lambda: bool(list(run.path.glob("attempt-1/checkpoints/*.sha256"))), "a checkpoint", process)
        others = process.children()
        assert len(others) == 1
        process.kill()
        _, alive = psutil.wait_procs(others, timeout=20)
        assert alive == []
        assert stage_state(run) is StageState.INTERRUPTED
    finally:
        for one in (process, *others):
            with contextlib.suppress(psutil.Error):
                one.kill()
        process.wait()


def wait_for(condition: Callable[[], bool], expected: str, process: psutil.Popen) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert process.poll() is None, "the process ended before it was killed"
        assert time.monotonic() < deadline, f"{expected}: not within {DEADLINE_SECONDS:.0f} s"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_stop_saves_the_state_and_leaves_no_process(whole: RunDir, trial: Trial, tmp_path: Path) -> None:
    run = prepared(tmp_path, trial)
    begun = run.path / "attempt-1" / "checkpoints"
    assert run_stage(tmp_path, run.key, data_root(), stop=begun.exists) is Outcome.STOPPED
    assert stage_state(run) is StageState.INTERRUPTED
    assert other_ranks() == []
    assert run_stage(tmp_path, run.key, data_root()) is Outcome.DONE
    same_end(run, whole)


def test_a_stop_before_every_rank_has_joined_does_not_wait_for_them(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "LEAVE_SECONDS", DEADLINE_SECONDS)
    run = prepared(tmp_path, trial)
    begun = time.monotonic()
    assert run_stage(tmp_path, run.key, data_root(), stop=lambda: bool(other_ranks())) is Outcome.STOPPED
    assert time.monotonic() - begun < DEADLINE_SECONDS
    assert other_ranks() == []
    assert not run.path.joinpath("attempt-1", "checkpoints").exists()


@pytest.mark.slow
def test_the_error_of_a_failed_rank_is_the_failure_of_the_stage(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = prepared(tmp_path, trial)
    real = ranks._stage_message
    monkeypatch.setattr(ranks, "_stage_message", lambda *message: real(*message).replace('"digits"', '"nonsense"'))
    assert run_stage(tmp_path, run.key, data_root()) is Outcome.FAILED
    failure = run.failure()
    assert failure is not None
    assert failure.state == "user"
    assert "rank 1 of 2 failed" in failure.message
    assert "nonsense" in failure.message


@pytest.mark.parametrize(("error", "status"), [(ValueError("a bad pack"), 0), (RankLost("rank 0 is gone"), 1)])
def test_in_a_job_a_rank_that_reported_its_failure_exits_with_0_so_that_slurm_does_not_kill_rank_0(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, status: int
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(ranks, "follow_stage", fail)
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    batch = Batch(
        name="umd-two",
        executor="slurm",
        host="here",
        created=0.0,
        tasks=(("key",),),
        root=str(tmp_path),
        data_root="data",
        entry_point="stage",
        code="code",
        minutes=60,
        signal_seconds=60,
        threads=1,
        devices=2,
    )
    jobs = JobRecords(tmp_path)
    jobs.announce_rank_0(batch.name, "7-0", "127.0.0.1:1")
    assert job_main._follow_rank_0(jobs, batch, SimpleNamespace(terminated=False, first=None)) == status  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_rank_that_does_not_join_is_lost_in_bounded_time(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "JOIN_SECONDS", 0.5)
    monkeypatch.setattr(ranks, "CONNECT_SECONDS", 0.5)
    run = prepared(tmp_path, trial)
    addresses: list[str] = []
    with pytest.raises(RankLost, match="rank 1 of 2 did not join within"):
        run_stage(tmp_path, run.key, data_root(), rank_launch=RankLaunch("127.0.0.1", addresses.append, 2))
    assert addresses[0].startswith("127.0.0.1:")
    assert stage_state(run) is StageState.INTERRUPTED
    with pytest.raises(RankLost, match="rank 0 is not at"):
        ranks.follow_stage(addresses[0], 1, local=1)


@pytest.mark.slow
def test_a_rank_that_is_killed_while_all_join_is_lost_in_bounded_time(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "JOINING_SECONDS", 1.0)
    run = prepared(tmp_path, trial)

    def report_ready_and_leave(address: str) -> None:
        TCPStore("127.0.0.1", int(address.rpartition(":")[2]), is_master=False).set("ready/1", "")

    begun = time.monotonic()
    with pytest.raises(RankLost, match="gone or silent"):
        run_stage(tmp_path, run.key, data_root(), rank_launch=RankLaunch("127.0.0.1", report_ready_and_leave, 2))
    assert time.monotonic() - begun < DEADLINE_SECONDS
    assert stage_state(run) is StageState.INTERRUPTED
    monkeypatch.undo()
    run_stage(tmp_path, run.key, data_root())  # the same process meets new ranks, as a Ray worker does
    assert stage_state(run) is StageState.DONE


def test_ranks_join_the_group_only_when_all_are_ready(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time limit of joining must not start while rank 0 still waits for the slowest rank."""
    monkeypatch.setattr(ranks, "JOIN_SECONDS", 1.0)
    joined = []
    monkeypatch.setattr(ranks, "_joined", lambda *_, **__: joined.append(1))
    run = prepared(tmp_path, trial)
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set("stage", ranks._stage_message(trial.specs["pretrain"], run, data_root()))
    with pytest.raises(RankLost, match="did not join in time"):
        ranks.follow_stage(f"127.0.0.1:{store.port}", 1, local=1)
    assert store.check(["ready/1"])
    assert joined == []


def test_the_group_waits_for_a_rank_as_long_as_a_checkpoint_may_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    group = parallel.RankGroup(HashStore(), 0, 1, torch.device("cpu"))
    try:
        backend = dist.distributed_c10d._get_default_group()._get_backend(torch.device("cpu"))
        assert backend.options._timeout.total_seconds() == parallel.STEP_SECONDS > parallel.JOINING_SECONDS
    finally:
        group.close()


def test_every_device_of_a_stage_is_counted_when_cores_are_divided(
    trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started_with: list[tuple[int, int]] = []

    def started(*_: object, workers: int, devices: int, **__: object) -> None:
        started_with.append((workers, devices))

    monkeypatch.setattr(launch, "start_executor", started)
    monkeypatch.setattr(launch, "usable_cores", lambda: 8)
    nodes = list(build_graph(tmp_path, [trial]).values())
    site = Site(tmp_path, tmp_path)
    for stages in (nodes, [node for node in nodes if node.name == "probe"]):
        launch._start(stages, site, launch.max_parallel_stages(stages, site))
    assert started_with == [(4, 2), (8, 1)]


def test_a_stage_that_no_process_owns_takes_the_most_recently_requested_resources(trial: Trial, tmp_path: Path) -> None:
    run = prepared(tmp_path, trial)
    prepared(tmp_path, trial_on(1, tmp_path))
    assert run.config().devices == 1
    with run.begin():
        prepared(tmp_path, trial)
        assert run.config().devices == 1, "an owner's config is left alone"
    prepared(tmp_path, trial)
    assert run.config().devices == 2


@pytest.mark.slow
def test_ranks_that_an_executor_started_ignore_a_number_of_devices_requested_later(
    whole: RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranks, "JOIN_SECONDS", DEADLINE_SECONDS)
    run = prepared(tmp_path, trial_on(3, tmp_path))
    started: list[subprocess.Popen[bytes]] = []

    def announce(address: str) -> None:
        write_yaml(run.path / "config.yaml", trial_on(4, tmp_path).specs["pretrain"].model_dump(mode="json"))
        started.append(ranks._start(address, 1, tmp_path / "rank-1.log", 1))

    try:
        assert run_stage(tmp_path, run.key, data_root(), rank_launch=RankLaunch("127.0.0.1", announce, 2)) is Outcome.DONE
        assert started[0].wait(DEADLINE_SECONDS) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert (run.result() or {})["environment"]["world_size"] == 2
    same_end(run, whole)


def test_a_job_for_one_device_starts_no_other_rank(trial: Trial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranks, "JOIN_SECONDS", 1.0)
    run = prepared(tmp_path, trial)
    addresses: list[str] = []
    assert run_stage(tmp_path, run.key, data_root(), rank_launch=RankLaunch("127.0.0.1", addresses.append, 1)) is Outcome.DONE
    assert addresses == []
    assert not list(run.path.glob("attempt-1/rank-*.log"))
    assert (run.result() or {})["environment"]["world_size"] == 1
