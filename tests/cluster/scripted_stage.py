"""A replacement of ``run_stage`` for tests of executors.

The real executor starts it in the process of a stage. It follows a script, which is a file in the run directory.

No heavy library is imported, since hundreds of jobs run these stages.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import umd_bench
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.orchestration.stage_process.entry_point import Outcome, RankLaunch
from umd_bench.orchestration.stage_process.stdout import captured_output
from umd_bench.store import Attempt, Failure, RunDir, StageBusy

NAME = "cluster.scripted_stage:run"
STEP_SECONDS = 0.05


def write_script(root: Path, key: str, script: str) -> None:
    """Write the stage's script: an action and its argument."""
    folder = RunDir(root, key).path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "script").write_text(script)


def run(root: Path, key: str, data_root: Path, *, stop: Callable[[], bool], rank_launch: RankLaunch | None = None) -> object:
    """Follow the script. Like ``run_stage``, do nothing if the stage already has a result or an owner."""
    stage = RunDir(root, key)
    if stage.result() is not None:
        return Outcome.DONE
    try:
        attempt = stage.begin()
    except StageBusy:
        return Outcome.BUSY
    with attempt, captured_output(attempt.path):
        attempt.event("state", state="running", pid=os.getpid())
        action, _, argument = (stage.path / "script").read_text().partition(" ")
        match action:
            case "succeed":
                _finish(attempt)
                return Outcome.DONE
            case "print":
                print(argument)
                print(f"stderr of {argument}", file=sys.stderr)
                os.write(2, f"file descriptor 2 of {argument}\n".encode())
                _finish(attempt)
                return Outcome.DONE
            case "say-where":
                attempt.finish({"metrics": {}, "file": umd_bench.__file__})
                return Outcome.DONE
            case "return-a-function":
                _finish(attempt)
                return lambda: attempt
            case "fail":
                attempt.fail(Failure(state="error", message=argument, fingerprint=argument))
                return Outcome.FAILED
            case "raise":
                raise RuntimeError(argument)
            case "print-and-exit":
                print(argument)
                os._exit(3)
            case "exit":
                os._exit(int(argument))
            case "fill-memory":
                try:
                    bytearray(1 << 55)
                except MemoryError:
                    attempt.fail(Failure(state="oom", message="no memory", fingerprint="oom"))
                    return Outcome.FAILED
            case "nap":
                until = time.monotonic() + float(argument)
                while time.monotonic() < until:
                    if stop():
                        return Outcome.STOPPED
                    time.sleep(STEP_SECONDS)
                _finish(attempt)
                return Outcome.DONE
            case "sleep":  # until the file `go` exists, or a stop is requested
                while not (stage.path / "go").exists():
                    if stop():
                        attempt.event("state", state="stopped")
                        return Outcome.STOPPED
                    time.sleep(STEP_SECONDS)
                _finish(attempt)
                return Outcome.DONE
        raise AssertionError(f"an unknown script: {action}")


def _finish(attempt: Attempt) -> None:
    """Write a result and, if the stage has a config, the snapshots that a child may read."""
    if (attempt.run.path / "config.yaml").exists():
        spec = attempt.run.config()
        for nimg in {*spec.snapshots, spec.stage.nimg} if isinstance(spec.stage, TrainStage) else ():
            path = attempt.run.snapshot(nimg)
            path.parent.mkdir(exist_ok=True)
            path.touch()
    attempt.finish({"metrics": {}})
