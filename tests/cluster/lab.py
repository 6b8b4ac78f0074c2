"""Shared by the executors' tests: start an executor, submit scripted stages, collect the stages that ended."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from cluster import scripted_stage

from umd_bench.config.launch.cluster import ClusterConfig
from umd_bench.config.launch.ray import RayConfig
from umd_bench.orchestration.executors.contract import Ended, Executor
from umd_bench.orchestration.executors.jobs.executor import SubmititExecutor
from umd_bench.orchestration.executors.jobs.queues.contract import Queue
from umd_bench.orchestration.executors.jobs.records import Claim, JobRecords
from umd_bench.orchestration.executors.registry import start_executor
from umd_bench.store import RunDir

DEADLINE_SECONDS = 150.0
STATUS_SECONDS = 1.0  # between two queries to the scheduler
POLL_SECONDS = 0.05  # between two checks of a condition
WORKERS = 2
CLUSTER = ClusterConfig.model_validate({"time": "5m", "signal_seconds": 5})


def wait_for(condition: Callable[[], bool], expected: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Poll until the condition holds; ``expected`` names it in the failure's message."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{expected}: not within {seconds:.0f} s"
        time.sleep(POLL_SECONDS)


def query_often(executor: Executor) -> Executor:
    """The same executor, which queries its scheduler every second instead of every 15."""
    if isinstance(executor, SubmititExecutor):
        executor._queue.status_seconds = STATUS_SECONDS
    return executor


def states(run: RunDir, attempt: int | None = None) -> list[str]:
    """The states that a stage went through, in one attempt or in all."""
    return [event["state"] for event in run.events(attempt) if event["event"] == "state"]


class Lab:
    """A results folder and an executor on it. Tests may share both, because every new stage gets a key that no other has."""

    def __init__(self, name: str, root: Path, *, ray: RayConfig | None = None) -> None:
        self.name, self.root, self.ray = name, root, ray
        self.workers, self.cluster = WORKERS, CLUSTER
        self.records = JobRecords(root.resolve())
        self._count = 0
        self._executor: Executor | None = None

    @property
    def executor(self) -> Executor:
        """The running executor; started if there is none."""
        if self._executor is None:
            self._executor = self.start()
        return self._executor

    def start(self) -> Executor:
        """Start an executor on the same results, as a command that is run again does."""
        executor = start_executor(
            self.name,
            self.root,
            self.root,
            workers=WORKERS,
            threads=1,
            cluster=self.cluster,
            entry_point=scripted_stage.NAME,
            ray=self.ray,
        )
        return query_often(executor)

    def request(self, **fields: object) -> None:
        """From now on jobs request these settings of the cluster."""
        self.close()
        self.cluster = ClusterConfig.model_validate({"time": "5m", "signal_seconds": 5, **fields})

    def queue(self) -> Queue:
        """The running executor's scheduler."""
        assert isinstance(self.executor, SubmititExecutor)
        return self.executor._queue

    def claim(self, key: str) -> Claim:
        """The stage's last submission."""
        claim = self.records.newest_claim(key)
        assert claim is not None
        return claim

    def job(self, key: str) -> str:
        """The id of the stage's last job."""
        job = self.records.job_id(self.claim(key))
        assert job is not None
        return job

    def recorded_ends(self, key: str) -> list[str | None]:
        """The end that each run of the stage's job has recorded."""
        claim = self.claim(key)
        return [line["end"] for line in self.records.job_runs(claim.batch, claim.task) if "end" in line]

    def wait_for_second_attempt(self, *keys: str) -> None:
        """Poll until each of these stages has begun a second attempt; none may end before that."""
        wait_for(
            lambda: self.executor.poll(0.2) == [] and all(len(self.dir(key).attempts()) >= 2 for key in keys),
            "a second attempt",
        )

    def abandon(self) -> None:
        """Leave the executor without closing it, as a killed command does."""
        self._executor = None

    def close(self) -> None:
        """Close the executor twice, since a second call must be harmless."""
        if self._executor is not None:
            self._executor.close()
            self._executor.close()
            self._executor = None

    def stages(self, *scripts: str) -> list[str]:
        """Write new stages that follow these scripts; returns their keys."""
        keys = []
        for script in scripts:
            self._count += 1
            keys.append(f"{self._count:016x}")
            scripted_stage.write_script(self.root, keys[-1], script)
        return keys

    def submit(self, *scripts: str) -> list[str]:
        """Write and submit new stages; returns their keys."""
        keys = self.stages(*scripts)
        for key in keys:
            self.executor.submit(key)
        return keys

    def run(self, *scripts: str) -> list[Ended]:
        """Run new stages to their end; returns how each one ended, in the same order."""
        keys = self.submit(*scripts)
        ended = self.collect(keys)
        return [ended[key] for key in keys]

    def collect(self, keys: Iterable[str], executor: Executor | None = None) -> dict[str, Ended]:
        """Poll until all of these stages have ended. Fails if poll returns one of them twice, or any other stage."""
        executor, wanted = executor or self.executor, set(keys)
        ended: dict[str, Ended] = {}
        deadline = time.monotonic() + DEADLINE_SECONDS
        while set(ended) != wanted:
            assert time.monotonic() < deadline, f"only {len(ended)} of {len(wanted)} stages ended"
            for item in executor.poll(0.2):
                assert item.key in wanted, "poll returned a stage that was not submitted"
                assert item.key not in ended, "poll returned a stage twice"
                ended[item.key] = item
        return ended

    def dir(self, key: str) -> RunDir:
        """The stage's run directory."""
        return RunDir(self.root, key)

    def go(self, *keys: str) -> None:
        """Let sleeping stages finish."""
        for key in keys:
            (self.dir(key).path / "go").touch()

    def pid(self, key: str) -> int:
        """Wait until the stage runs; returns the id of its process."""
        pids: list[int] = []

        def running() -> bool:
            self.executor.poll(0) if self._executor is not None else None
            pids.extend(event["pid"] for event in self.dir(key).events() if "pid" in event)
            return bool(pids)

        wait_for(running, f"{key} running")
        return pids[-1]

    def command(self, keys: Iterable[str]) -> subprocess.Popen[str]:
        """Start a process that submits these stages and polls, as the command does; returns when it has submitted them."""
        path = os.environ["PYTHONPATH"]
        address = self.ray.address if self.ray is not None else None
        name = self.name if address is None else f"{self.name}={address}"
        command = [sys.executable, "-m", "cluster.submitting_command", name, str(self.root), *keys]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})
        assert process.stdout is not None
        ready = select.select([process.stdout], [], [], DEADLINE_SECONDS)[0]
        if not ready or "polled" not in process.stdout.readline():
            process.kill()
            process.wait(timeout=30)
            raise AssertionError(f"the submitting command ended, or submitted nothing within {DEADLINE_SECONDS:.0f} s")
        return process
