"""What the executors' tests do over and over: start one, submit scripted stages, collect what ended."""

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
from umd_bench.orchestration.executors.registry import start_executor
from umd_bench.store import RunDir

DEADLINE_SECONDS = 150.0
STATUS_SECONDS = 1.0
WORKERS = 2
CLUSTER = ClusterConfig.model_validate({"time": "5m", "signal_seconds": 5})


def wait_for(condition: Callable[[], bool], what: str, seconds: float = DEADLINE_SECONDS) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.05)


class Lab:
    """A results folder and an executor on it; keys are counted, so that tests may share both."""

    def __init__(self, name: str, root: Path, *, ray: RayConfig | None = None) -> None:
        self.name, self.root, self.ray = name, root, ray
        self.workers, self.cluster = WORKERS, CLUSTER
        self._count = 0
        self._executor: Executor | None = None

    @property
    def executor(self) -> Executor:
        """The running one."""
        if self._executor is None:
            self._executor = self.another()
        return self._executor

    def another(self) -> Executor:
        """A second executor on the same results, as a command that is started again has it."""
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
        if isinstance(executor, SubmititExecutor):
            executor._queue.status_seconds = STATUS_SECONDS
        return executor

    def close(self) -> None:
        """End what runs; twice, as is promised to be harmless."""
        if self._executor is not None:
            self._executor.close()
            self._executor.close()
            self._executor = None

    def stages(self, *scripts: str) -> list[str]:
        """Keys of new stages that follow these scripts."""
        keys = []
        for script in scripts:
            self._count += 1
            keys.append(f"{self._count:016x}")
            scripted_stage.write_script(self.root, keys[-1], script)
        return keys

    def submit(self, *scripts: str) -> list[str]:
        """Keys of new stages, submitted."""
        keys = self.stages(*scripts)
        for key in keys:
            self.executor.submit(key)
        return keys

    def run(self, *scripts: str) -> list[Ended]:
        """What became of new stages, in their order."""
        keys = self.submit(*scripts)
        ended = self.collect(keys)
        return [ended[key] for key in keys]

    def collect(self, keys: Iterable[str], executor: Executor | None = None) -> dict[str, Ended]:
        """Poll until all of these ended; each once, and nothing else."""
        executor, wanted = executor or self.executor, set(keys)
        ended: dict[str, Ended] = {}
        deadline = time.monotonic() + DEADLINE_SECONDS
        while set(ended) != wanted:
            assert time.monotonic() < deadline, f"only {len(ended)} of {len(wanted)} stages ended"
            for item in executor.poll(0.2):
                assert item.key in wanted, "a stage was returned that nobody waits for"
                assert item.key not in ended, "a stage was returned twice"
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
        """The process that runs the stage, once one does."""
        found: list[int] = []

        def running() -> bool:
            self.executor.poll(0) if self._executor is not None else None
            found.extend(event["pid"] for event in self.dir(key).events() if "pid" in event)
            return bool(found)

        wait_for(running, f"{key} running")
        return found[-1]

    def submitting_side(self, keys: Iterable[str]) -> subprocess.Popen[str]:
        """A process of its own that has submitted these stages."""
        path = os.environ["PYTHONPATH"]
        address = self.ray.address if self.ray is not None else None
        name = self.name if address is None else f"{self.name}={address}"
        command = [sys.executable, "-m", "cluster.submitting_side", name, str(self.root), *keys]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})
        assert process.stdout is not None
        ready = select.select([process.stdout], [], [], DEADLINE_SECONDS)[0]
        if not ready or "polled" not in process.stdout.readline():
            process.kill()
            process.wait(timeout=30)
            raise AssertionError("the submitting side ended, or was silent for too long")
        return process
