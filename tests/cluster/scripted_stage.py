"""Stages that do as they are told, in whatever process an executor runs them: the script is a file in the run directory.

Nothing heavy is imported: hundreds of jobs run these.
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
from umd_bench.orchestration.stage_process.stdout import kept_output
from umd_bench.store import Attempt, Failure, RunDir, StageBusy

NAME = "cluster.scripted_stage:run"
STEP_SECONDS = 0.05


def write_script(root: Path, key: str, words: str) -> None:
    """What the stage will do: the first word and its argument."""
    folder = RunDir(root, key).path
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "script").write_text(words)


def run(root: Path, key: str, data_root: Path, *, stop: Callable[[], bool], rank_launch: RankLaunch | None = None) -> object:
    """Follow the script; as ``run_stage`` does, leave alone what has a result or an owner."""
    stage = RunDir(root, key)
    if stage.result() is not None:
        return Outcome.DONE
    try:
        attempt = stage.begin()
    except StageBusy:
        return Outcome.BUSY
    with attempt, kept_output(attempt.path):
        attempt.event("state", state="running", pid=os.getpid())
        word, _, argument = (stage.path / "script").read_text().partition(" ")
        match word:
            case "succeed":
                _finish(attempt)
                return Outcome.DONE
            case "print":
                print(argument)
                print(f"complained of {argument}", file=sys.stderr)
                os.write(2, f"below Python {argument}\n".encode())
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
            case "sleep":  # until somebody writes the file `go`, or asks to stop
                while not (stage.path / "go").exists():
                    if stop():
                        attempt.event("state", state="stopped")
                        return Outcome.STOPPED
                    time.sleep(STEP_SECONDS)
                _finish(attempt)
                return Outcome.DONE
        raise AssertionError(f"an unknown script: {word}")


def _finish(attempt: Attempt) -> None:
    """A result and, where a child may read them, the snapshots."""
    if (attempt.run.path / "config.yaml").exists():
        spec = attempt.run.config()
        for nimg in {*spec.snapshots, spec.stage.nimg} if isinstance(spec.stage, TrainStage) else ():
            path = attempt.run.snapshot(nimg)
            path.parent.mkdir(exist_ok=True)
            path.touch()
    attempt.finish({"metrics": {}})
