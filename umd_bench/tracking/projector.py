"""Brings an MLflow store up to date with the run directories. It adds what is missing and deletes nothing, so it can run at any
time.

A sweep becomes an experiment, a trial a run, and the sweep's table and figure go into a run named ``summary``, the parent of
the others. A tag of each run says which stages it has, so a second projection changes nothing, and an interrupted one is
completed by the next. Another tag says whether the run's trial is still in the sweep. Only this module imports MLflow, and
late, since that takes seconds. MLflow's errors become :class:`TrackingError`.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock

from umd_bench.config.errors import UserError
from umd_bench.store import SweepRecord, TrialRecord, list_sweeps, read_sweep, sweep_dir
from umd_bench.tracking import trial_contents

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

TRIAL, STAGES, CURRENT, FILES = "umd_bench.trial", "umd_bench.stages", "umd_bench.current", "umd_bench.files"
SUMMARY = "summary"
SUMMARY_FILES = ("table.md", "table.html", "table.csv", "differences.csv", "long.csv", "figure.png")
LOCK_SECONDS = 30.0  # wait for another projection of the same folder
CHECK_TIMEOUT_SECONDS = 20.0
_ACCEPTED_URI = r"(sqlite|https?|postgresql|mysql|mssql|databricks|file)(\+\w+)?:"
_BATCH = 900  # MLflow accepts at most 1000 values at once
_NOTE_CHARACTERS = 7_000
# Set before MLflow is imported, unless the user has set them: no telemetry, no progress bars, and an error within seconds if
# the server does not answer (MLflow's own defaults try for four minutes).
_QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "CRITICAL",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}


class TrackingError(UserError):
    """The store could not be updated. Results are not affected, and a later projection sends what is missing."""


@dataclass(frozen=True)
class ProjectionCounts:
    """How many runs of an experiment a projection created, completed and left unchanged, including the summary run."""

    created: int = 0
    completed: int = 0
    unchanged: int = 0

    def __str__(self) -> str:
        return f"{self.created} runs created, {self.completed} completed, {self.unchanged} unchanged"


def default_uri(results: Path) -> str:
    """The default store: a SQLite file in the results folder."""
    return f"sqlite:///{(results / 'mlflow.db').resolve()}"


def push(results: Path, sweep: str | None = None, uri: str | None = None) -> Iterator[str]:
    """Project one sweep of the results folder, or all if None; yield one line for each.

    Raises :class:`TrackingError` for a store that cannot be used and :class:`UserError` for an unknown sweep.
    """
    names = list_sweeps(results) if sweep is None else [sweep]
    if not names:
        raise UserError(f"there is no sweep in {results} to push; `umd-bench sweep FILE` makes one")
    projector = MlflowProjector(uri or default_uri(results), results)
    for name in names:
        yield f"{name}: {projector.project(read_sweep(results, name))} in {projector.address}"


def check_store(uri: str | None, results: Path) -> str:
    """One sentence on the state of the store of ``--mlflow URI``. Raises :class:`TrackingError` if it cannot be used."""
    return "MLflow: off" if uri == "off" else MlflowProjector(uri or default_uri(results), results).check()


class MlflowProjector:
    """Projects sweeps of the results folder ``root`` into the store at ``uri``. Creating the object touches neither."""

    def __init__(self, uri: str, root: Path) -> None:
        self._uri, self._root = uri, root
        self._inode: int | None = None
        self.address = _without_password(uri)

    def project(self, sweep: SweepRecord) -> ProjectionCounts:
        """Update the experiment with the sweep's name from the run directories.

        Two processes that project at the same time take turns. Raises :class:`TrackingError` and nothing else.
        """
        try:
            with filelock.FileLock(self._root / "mlflow.lock", timeout=LOCK_SECONDS), _connected(self._uri) as client:
                counts = self._project(client, sweep)
                self._check_file()
                return counts
        except Exception as error:  # MLflow may raise anything, and a sweep has to survive it
            raise TrackingError(
                f"MLflow at {self.address} cannot be updated ({_reason(error)}); results are not affected, and "
                f"`umd-bench mlflow push` sends what is missing"
            ) from error

    def check(self) -> str:
        """One sentence on the state of the store; writes nothing. Raises :class:`TrackingError` if it cannot be used.

        For a server this only shows that it answers, not that it accepts data.
        """
        outcomes: list[str | Exception] = []
        thread = threading.Thread(target=lambda: outcomes.append(self._check()), name="mlflow", daemon=True)
        thread.start()
        thread.join(CHECK_TIMEOUT_SECONDS)
        outcome = outcomes[0] if outcomes else TimeoutError(f"no answer within {CHECK_TIMEOUT_SECONDS:.0f} s")
        if isinstance(outcome, Exception):
            raise TrackingError(
                f"MLflow at {self.address} cannot be used ({_reason(outcome)}); results are not affected"
            ) from outcome
        return outcome

    def _check(self) -> str | Exception:
        path = Path(self._uri.removeprefix("sqlite:///"))
        try:
            if not self._uri.startswith("sqlite:///"):
                with _connected(self._uri) as client:
                    client.search_experiments(max_results=1)
                return f"MLflow at {self.address} answers"
            if not path.exists():
                return f"MLflow: {self.address} does not exist yet; the first sweep makes it"
            with contextlib.closing(
                sqlite3.connect(f"file:{path}?mode=rw", uri=True, timeout=CHECK_TIMEOUT_SECONDS / 2)
            ) as store:
                store.execute("BEGIN IMMEDIATE")  # fails without permission to write, or while another process writes
                store.rollback()
        except Exception as error:
            return error
        return f"MLflow: {self.address} can be written"

    def _check_file(self) -> None:
        """Raise ``FileNotFoundError`` if the SQLite file is gone or was replaced; MLflow would write to the deleted one."""
        if not self._uri.startswith("sqlite:///"):
            return
        path = Path(self._uri.removeprefix("sqlite:///"))
        inode = path.stat().st_ino if path.exists() else None
        if inode is None or self._inode not in (None, inode):
            raise FileNotFoundError("the file was removed or replaced while this process had it open")
        self._inode = inode

    def _project(self, client: MlflowClient, sweep: SweepRecord) -> ProjectionCounts:
        experiment = self._experiment(client, sweep)
        runs = {run.data.tags[TRIAL]: run for run in _runs(client, experiment) if TRIAL in run.data.tags}
        outcome, parent = self._project_summary(client, experiment, sweep, runs.get(SUMMARY))
        outcomes, pruned = [outcome], sweep.pruned()
        for trial in sweep.trials:
            run = runs.get(trial_contents.trial_tag(trial))
            states = trial_contents.stage_states(self._root, trial, pruned=trial.id in pruned)
            outcomes.append(self._project_trial(client, experiment, sweep, trial, run, parent, states))
        wanted = {trial_contents.trial_tag(trial) for trial in sweep.trials} | {SUMMARY}
        for tag, run in runs.items():
            current = "yes" if tag in wanted else "no"
            if run.data.tags.get(CURRENT) != current:
                client.set_tag(run.info.run_id, CURRENT, current)
        return ProjectionCounts(outcomes.count("created"), outcomes.count("completed"), outcomes.count("unchanged"))

    def _experiment(self, client: MlflowClient, sweep: SweepRecord) -> str:
        experiment = client.get_experiment_by_name(sweep.name)
        if experiment is None:
            # A server has its own place for files. A plain database has none, so files go into the results folder.
            location = None if self._uri.startswith("http") else (self._root / "mlartifacts" / sweep.name).resolve().as_uri()
            note = {"mlflow.note.content": sweep.question} if sweep.question else {}
            return str(client.create_experiment(sweep.name, artifact_location=location, tags=note))
        if experiment.lifecycle_stage != "active":
            client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _project_summary(self, client: MlflowClient, experiment: str, sweep: SweepRecord, run: Run | None) -> tuple[str, str]:
        """Update the run with the sweep's table and figure; return ``created``, ``completed`` or ``unchanged``, and its id."""
        folder = sweep_dir(self._root, sweep.name)
        files = [folder / name for name in SUMMARY_FILES if (folder / name).is_file()]
        digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]
        if run is not None and run.data.tags.get(FILES) == digest:
            return "unchanged", str(run.info.run_id)
        created = run is None
        if run is None:
            tags = {TRIAL: SUMMARY, CURRENT: "yes", "umd_bench.sweep": sweep.name, "umd_bench.tier": sweep.tier}
            run = client.create_run(experiment, run_name=SUMMARY, tags=tags)
        run_id = str(run.info.run_id)
        for path in files:
            client.log_artifact(run_id, str(path))
        if (folder / "table.md").is_file():
            client.set_tag(run_id, "mlflow.note.content", (folder / "table.md").read_text()[:_NOTE_CHARACTERS])
        client.set_terminated(run_id, "FINISHED")
        client.set_tag(run_id, FILES, digest)
        return "created" if created else "completed", run_id

    def _project_trial(
        self,
        client: MlflowClient,
        experiment: str,
        sweep: SweepRecord,
        trial: TrialRecord,
        run: Run | None,
        parent: str,
        states: dict[str, str],
    ) -> str:
        """Update the run of one trial, whose stages have ``states``; return ``created``, ``completed`` or ``unchanged``."""
        projected = json.loads(run.data.tags.get(STAGES, "{}")) if run is not None else {}
        if run is not None and projected == states:
            return "unchanged"
        created = run is None
        if run is None:
            tags = {TRIAL: trial_contents.trial_tag(trial), CURRENT: "yes", "mlflow.parentRunId": parent}
            start = trial_contents.started_ms(self._root, trial)
            run = client.create_run(experiment, run_name=trial.id, tags=tags, start_time=start)
        run_id = str(run.info.run_id)
        new = [name for name, state in states.items() if state == "done" and projected.get(name) != "done"]
        self._log(client, run_id, sweep, trial, new)
        self._set_status(client, run_id, trial, states)
        client.set_tag(run_id, STAGES, json.dumps(states))  # last, so that an interrupted projection is repeated
        return "created" if created else "completed"

    def _log(self, client: MlflowClient, run_id: str, sweep: SweepRecord, trial: TrialRecord, stages: list[str]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        points = [point for name in stages for point in trial_contents.stage_points(self._root, name, trial.stages[name])]
        metrics = [Metric(point.name, point.value, point.time_ms, point.step) for point in points]
        params = [Param(name, value) for name, value in trial_contents.params(self._root, sweep, trial).items()]
        tags = [RunTag(name, value) for name, value in trial_contents.tags(self._root, sweep, trial).items()]
        client.log_batch(run_id, params=params)
        client.log_batch(run_id, tags=tags)
        for start in range(0, len(metrics), _BATCH):
            client.log_batch(run_id, metrics=metrics[start : start + _BATCH])
        for name in stages:
            samples = self._root / "stages" / trial.stages[name] / "artifacts" / "samples.png"
            if samples.is_file():
                client.log_artifact(run_id, str(samples), artifact_path=name)

    def _set_status(self, client: MlflowClient, run_id: str, trial: TrialRecord, states: dict[str, str]) -> None:
        if "failed" in states.values():
            client.set_terminated(run_id, "FAILED", trial_contents.ended_ms(self._root, trial))
        elif set(states.values()) == {"done"}:
            client.set_terminated(run_id, "FINISHED", trial_contents.ended_ms(self._root, trial))
        elif "pruned" in states.values():
            client.set_terminated(run_id, "KILLED", trial_contents.ended_ms(self._root, trial))
        else:
            client.update_run(run_id, status="RUNNING")


@contextlib.contextmanager
def _connected(uri: str) -> Iterator[MlflowClient]:
    if not re.match(_ACCEPTED_URI, uri):
        raise ValueError("expected sqlite:///FILE, http://SERVER, https://SERVER or the URI of a database server")
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # errors are raised anyway
    yield MlflowClient(tracking_uri=uri, registry_uri=uri)


def _runs(client: MlflowClient, experiment: str) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _reason(error: BaseException) -> str:
    """One sentence: the error of the system or the database that MLflow's error wraps, or else MLflow's own."""
    shown, below = error, error.__cause__ or error.__context__
    while below is not None:
        shown = below if isinstance(below, OSError | sqlite3.Error) else shown
        below = below.__cause__ or below.__context__
    sentence = str(shown).strip().split("\n")[0].split(". ")[0]
    return _without_password(sentence[:200]) or type(shown).__name__


def _without_password(text: str) -> str:
    return re.sub(r"//[^/@\s]*@", "//***@", text)
