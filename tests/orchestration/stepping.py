"""An executor whose trainings take several steps, keep weights on the way and can be asked to stop: for searches that prune."""

from __future__ import annotations

import json
import math
import random
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.orchestration.executors.contract import Ended, EndReason
from umd_bench.orchestration.stage_process.entry_point import Outcome, RankLaunch
from umd_bench.store import Failure, RunDir

STEPS = 4  # of a training; what comes after it takes one
LINGER_SECONDS = 90.0


class SteppingExecutor:
    """Each poll moves one of the running stages a step on, drawn from ``seed``; what a training has done stays when it ends.

    What is no training is short and comes first. A probe's accuracy falls with the mask ratio and the learning rate, and rises
    with the share of the training.
    """

    name = "stepping"

    def __init__(self, root: Path, *, slots: int = 2, seed: int = 0, worst: float = float("inf")) -> None:
        """Trainings that are worse than ``worst`` fail after half of their length, and then nothing is short."""
        self.slots, self.submitted, self.cancelled = slots, list[str](), list[str]()
        self.most_at_once = 0
        self._root, self._random, self._worst = root, random.Random(seed), worst
        self._running: list[str] = []

    def submit(self, key: str) -> None:
        self.submitted.append(key)
        self._running.append(key)
        self.most_at_once = max(self.most_at_once, len(self._running))

    def adopt(self, keys: Iterable[str]) -> set[str]:
        return set()

    def poll(self, timeout: float) -> list[Ended]:
        asked = [key for key in self._running if key in self.cancelled]
        if asked:
            self._running.remove(asked[0])
            self.cancelled.remove(asked[0])
            return [Ended(asked[0], EndReason.CANCELLED, "asked to")]
        if not self._running:
            return []
        short = [key for key in self._running if not isinstance(RunDir(self._root, key).config().stage, TrainStage)]
        key = self._random.choice(short if short and math.isinf(self._worst) else self._running)
        run = RunDir(self._root, key)
        spec = run.config()
        if isinstance(spec.stage, TrainStage) and badness(run) > self._worst and steps_of(run) == STEPS // 2:
            with run.begin() as attempt:
                attempt.fail(Failure(state="nan", message=f"not finite in {key}", fingerprint=key))
            self._running.remove(key)
            return [Ended(key)]
        if isinstance(spec.stage, TrainStage) and (done := steps_of(run)) < STEPS - 1:
            step(run, done + 1)
            return []
        finish(run)
        self._running.remove(key)
        return [Ended(key)]

    def cancel(self, key: str) -> None:
        assert key in self._running
        self.cancelled.append(key)

    def stop(self) -> None:
        pass

    def detach(self) -> None:
        pass

    def close(self) -> None:
        pass


def steps_of(run: RunDir) -> int:
    """How many steps a training has done, in all commands."""
    return sum(event["event"] == "metrics" for event in run.events())


def step(run: RunDir, number: int) -> None:
    """One more step of a training: a record, and the weights that are asked for there."""
    spec = run.config()
    assert isinstance(spec.stage, TrainStage)
    nimg = spec.stage.nimg * number // STEPS
    with run.begin() as attempt:
        attempt.event("metrics", nimg=nimg, loss=badness(run) / number, lr=1.0, images_per_second=5.0)
    for kept in {*spec.snapshots, spec.stage.nimg}:
        if kept <= nimg:
            run.snapshot(kept).parent.mkdir(exist_ok=True)
            run.snapshot(kept).write_text("weights")


def badness(run: RunDir) -> float:
    """What is searched, of the training that the stage descends from."""
    spec = run.config()
    while spec.parent_key is not None:
        spec = RunDir(run.root, spec.parent_key).config()
    assert isinstance(spec.stage, TrainStage)
    return spec.stage.corruption.mask_ratio + spec.stage.optim.lr_per_256 + 0.1 * spec.seed


def finish(run: RunDir) -> None:
    """The stage's result."""
    spec, bad = run.config(), badness(run)
    if isinstance(spec.stage, TrainStage):
        step(run, STEPS)
    share = (spec.parent_nimg or 0) / 640
    metrics = {"acc_5shot": share * (2 - bad), "fd": 3 * bad, "loss_final": bad}
    with run.begin() as attempt:
        attempt.finish(json.loads(json.dumps({"metrics": metrics, "cost": {"seconds": 1.0}})))


def run_here(
    root: Path, key: str, data_root: Path, *, stop: Callable[[], bool], rank_launch: RankLaunch | None = None
) -> Outcome:
    """A stage as an executor runs it: from where it stands to its end, unless it is asked to stop between steps.

    A training with a file ``lingers`` in its folder waits half-way for that, but not for ever.
    """
    run = RunDir(root, key)
    if isinstance(run.config().stage, TrainStage):
        for number in range(steps_of(run) + 1, STEPS + 1):
            if stop():
                return Outcome.STOPPED
            if number < STEPS:
                step(run, number)
            until = time.monotonic() + LINGER_SECONDS
            while number == STEPS // 2 and (run.path / "lingers").exists() and not stop() and time.monotonic() < until:
                time.sleep(0.05)
    finish(run)
    return Outcome.DONE
