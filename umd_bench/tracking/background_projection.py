"""Tracking during a sweep: a thread of the command's own process, which no stage ever waits for.

The sweep calls :meth:`~BackgroundProjection.tick` whenever something may have changed; the thread projects at most every
``PERIOD_SECONDS``. After an error it tries again at the next tick. :meth:`~BackgroundProjection.finish` reports the outcome of
the last try.
"""

from __future__ import annotations

import threading
from pathlib import Path

from umd_bench.store import SweepRecord
from umd_bench.tracking.projector import MlflowProjector, ProjectionCounts, TrackingError, default_uri

PERIOD_SECONDS = 15.0
FINISH_SECONDS = 120.0


class BackgroundProjection:
    """Projects ``sweep`` into the store at ``uri``: None means the default store, ``off`` no tracking."""

    def __init__(self, uri: str | None, results: Path, sweep: SweepRecord) -> None:
        self._sweep = sweep
        self._projector = None if uri == "off" else MlflowProjector(uri or default_uri(results), results)
        self._changed, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._outcome: ProjectionCounts | TrackingError | None = None

    def tick(self, sweep: SweepRecord | None = None) -> None:
        """Request a projection; ``sweep`` is the new record if trials were added. Returns immediately."""
        if sweep is not None:
            self._sweep = sweep
        self._changed.set()
        if self._projector is not None and self._thread is None:
            self._thread = threading.Thread(target=self._run, args=(self._projector,), name="mlflow", daemon=True)
            self._thread.start()

    def finish(self) -> str:
        """Project once more, wait for at most ``FINISH_SECONDS``, and report the outcome in one line. Never raises."""
        if self._projector is None:
            return "MLflow: off"
        self._closing.set()
        self.tick()
        assert self._thread is not None
        self._thread.join(FINISH_SECONDS)
        if self._thread.is_alive():
            return f"MLflow: {self._projector.address} has not answered yet; `umd-bench mlflow push` sends what is missing"
        if isinstance(self._outcome, ProjectionCounts):
            return f"MLflow: experiment {self._sweep.name} is up to date in {self._projector.address}"
        return str(self._outcome)

    def _run(self, projector: MlflowProjector) -> None:
        while True:
            self._changed.wait()
            self._changed.clear()
            closing = self._closing.is_set()  # read after clear(): a later finish() sets the event again
            try:
                self._outcome = projector.project(self._sweep)
            except TrackingError as error:
                self._outcome = error
            if closing:
                return
            self._closing.wait(PERIOD_SECONDS)
