"""The output of training: metrics, checkpoints and snapshots, in the run directory of one stage."""

from __future__ import annotations

from typing import Protocol

from umd_bench.engine.training.snapshot import publish_snapshot
from umd_bench.engine.training.state import TrainingState
from umd_bench.store.run import Attempt


class TrainingOutput(Protocol):
    """Where the training loop writes; each call records the present ``state``."""

    def metrics(self, state: TrainingState, metrics: dict[str, float], *, lr: float, images_per_second: float) -> None:
        """Record the means since the last record, and the learning rate of the last step."""

    def checkpoint(self, state: TrainingState) -> None:
        """Save the whole state. Raises :class:`NonFiniteError` if it is not finite."""

    def snapshot(self, state: TrainingState, *, images_per_second: float) -> None:
        """Publish the weights, their moving average if the stage keeps one, and the outcome so far."""


class RunOutput:
    """Writes into the attempt's folder and publishes snapshots in the stage's run directory."""

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def metrics(self, state: TrainingState, metrics: dict[str, float], *, lr: float, images_per_second: float) -> None:
        """Append an event to the attempt's events."""
        self._attempt.event("metrics", nimg=state.nimg, **metrics, lr=lr, images_per_second=images_per_second)

    def checkpoint(self, state: TrainingState) -> None:
        """Write a file into the attempt's folder, and keep only the two newest."""
        state.save(self._attempt.checkpoints)

    def snapshot(self, state: TrainingState, *, images_per_second: float) -> None:
        """Write a file into the run directory, unless another process published that snapshot first."""
        outcome = {"metrics": state.final_metrics(), "exact": state.exact, "images_per_second": images_per_second}
        publish_snapshot(self._attempt, state.nimg, dict(state.model.named_parameters()), state.average_weights(), outcome)


class NoOutput:
    """Writes nothing: for every rank but rank 0."""

    def metrics(self, state: TrainingState, metrics: dict[str, float], *, lr: float, images_per_second: float) -> None:
        """Do nothing."""

    def checkpoint(self, state: TrainingState) -> None:
        """Do nothing."""

    def snapshot(self, state: TrainingState, *, images_per_second: float) -> None:
        """Do nothing."""
