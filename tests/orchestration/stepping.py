"""An executor for searches that prune: its trainings take several steps, keep snapshots and can be cancelled between steps."""

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

STEPS = 4  # of a training; every other stage takes one
LINGER_SECONDS = 90.0


class SteppingExecutor:
    """Each poll advances one running stage, which ``seed`` draws, by a step. A cancelled training resumes from its last step.

    Stages of other kinds go before trainings. A probe's accuracy falls with the mask ratio, the learning rate and the seed of
    the pre-training, and rises with the number of images that its parent had seen.
    """

    name = "stepping"

    def __init__(self, root: Path, *, slots: int = 2, seed: int = 0, worst: float = float("inf")) -> None:
        """Trainings whose :func:`badness` exceeds ``worst`` fail half-way. With a finite ``worst``, no stage goes first."""
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
        cancelled = [key for key in self._running if key in self.cancelled]
        if cancelled:
            self._running.remove(cancelled[0])
            self.cancelled.remove(cancelled[0])
            return [Ended(cancelled[0], EndReason.CANCELLED, "cancelled")]
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
    """The steps that a training has done in all its attempts."""
    return sum(event["event"] == "metrics" for event in run.events())


def step(run: RunDir, number: int) -> None:
    """Step ``number`` of a training: a metrics event, and the snapshots due by then."""
    spec = run.config()
    assert isinstance(spec.stage, TrainStage)
    nimg = spec.stage.nimg * number // STEPS
    with run.begin() as attempt:
        attempt.event("metrics", nimg=nimg, loss=badness(run) / number, lr=1.0, images_per_second=5.0)
    for snapshot in {*spec.snapshots, spec.stage.nimg}:
        if snapshot <= nimg:
            run.snapshot(snapshot).parent.mkdir(exist_ok=True)
            run.snapshot(snapshot).write_text("weights")


def badness(run: RunDir) -> float:
    """A number that grows with the searched values and the seed of the stage's pre-training."""
    spec = run.config()
    while spec.parent_key is not None:
        spec = RunDir(run.root, spec.parent_key).config()
    assert isinstance(spec.stage, TrainStage)
    return spec.stage.corruption.mask_ratio + spec.stage.optim.lr_per_256 + 0.1 * spec.seed


def finish(run: RunDir) -> None:
    """Finish the stage with metrics that depend on its :func:`badness`."""
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
    """An entry point: run a stage from its last step to its end, unless ``stop`` is true between two steps.

    A training with a file ``lingers`` in its folder waits half-way until the file is gone, at most ``LINGER_SECONDS``.
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
