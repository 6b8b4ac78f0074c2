"""Run a resolved sweep, or one trial, and print what came out. The verbs only read their options and call these functions."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from umd_bench.cli.console import console, print_line

if TYPE_CHECKING:
    from umd_bench.config.sweep.resolve import Sweep, Trial
    from umd_bench.orchestration.graph import Node
    from umd_bench.orchestration.launch import Site
    from umd_bench.orchestration.trial_source import SweepProgress


def run_sweep(sweep: Sweep, site: Site, mlflow: str | None, *, detach: bool = False) -> None:
    """Run what a sweep still lacks, then print its table; with ``detach`` submit it as jobs instead, and return at once.

    Raises :class:`typer.Exit` with code 1 if a stage failed or is missing.
    """
    from umd_bench.config.errors import UserError
    from umd_bench.orchestration.fusion.option import search_lines

    if sweep.config.search is None:
        _run_grid(sweep, site, mlflow, detach=detach)
        return
    for line in search_lines(site.fuse, site.executor):
        print_line(line)
    if detach:
        raise UserError("--detach is not accepted: a search is suggested by the command's own process, which has to stay")
    _run_search(sweep, site, mlflow)


def _run_grid(sweep: Sweep, site: Site, mlflow: str | None, *, detach: bool) -> None:
    from umd_bench.orchestration.forecast.accuracy import forecast_error, save_forecast
    from umd_bench.orchestration.forecast.forecast import make_forecast
    from umd_bench.orchestration.graph import sweep_record
    from umd_bench.orchestration.launch import execute, prepare
    from umd_bench.orchestration.scheduler import Scheduler
    from umd_bench.orchestration.trial_source import Grid
    from umd_bench.store import StageState, cancel_file, write_sweep
    from umd_bench.tracking.background_projection import BackgroundProjection

    nodes = prepare(sweep.trials, site)
    record = sweep_record(sweep)
    request = cancel_file(site.results, record.name)
    request.unlink(missing_ok=True)  # an earlier command's; a request that arrives from here on is obeyed

    def begin() -> None:
        write_sweep(site.results, record)
        save_forecast(site.results, record.name, make_forecast(site.results, nodes, 1, data_root=site.data))

    reused = sum(node.state is StageState.DONE for node in nodes.values())
    console.print(f"{record.name} ({record.tier}): {len(record.trials)} trials, {len(nodes)} stages, {reused} reused")
    if detach:
        begin()
        submit_and_leave(nodes, site, f"`umd-bench status {record.name}`")
        return
    tracking = BackgroundProjection(mlflow, site.results, record)
    scheduler = Scheduler(site.results, Grid(nodes))
    progress = execute(scheduler, site, console, on_start=begin, observe=lambda _: tracking.tick(), cancel_file=request)
    if progress.finished or progress.reused:
        print_report_of(site.results, record.name)
        print_line(tracking.finish())
        if (error := forecast_error(site.results, record.name)) is not None:
            print_line(error)
    if not progress.complete:
        explain_and_exit(progress)


def _run_search(sweep: Sweep, site: Site, mlflow: str | None) -> None:
    """Run a search to its last suggestion; one that fails is a result of the search, not a failure of the command."""
    from umd_bench.orchestration.forecast.accuracy import save_forecast, search_forecast_error
    from umd_bench.orchestration.forecast.forecast import make_forecast
    from umd_bench.orchestration.graph import build_graph
    from umd_bench.orchestration.launch import execute, prepare
    from umd_bench.orchestration.scheduler import Scheduler
    from umd_bench.orchestration.search.rungs import checked_corners
    from umd_bench.orchestration.search.search import Search
    from umd_bench.store import cancel_file
    from umd_bench.tracking.background_projection import BackgroundProjection

    with Search(sweep, site.results, lambda trials: prepare(trials, site), data_root=site.data) as search:
        scheduler = Scheduler(site.results, search)
        record = search.record()
        console.print(f"{record.name} ({record.tier}): {search.outcome}")
        corners = checked_corners(sweep)
        share = search.n_left * len(sweep.config.seeds) / len(corners)
        if share > 0:
            made = make_forecast(site.results, build_graph(site.results, corners), 1, copies=share, data_root=site.data)
            save_forecast(site.results, record.name, made)
        tracking = BackgroundProjection(mlflow, site.results, record)

        n_trials = len(scheduler.progress.trials)

        def track(progress: SweepProgress) -> None:
            nonlocal n_trials
            grown, n_trials = len(progress.trials) > n_trials, len(progress.trials)
            tracking.tick(search.record() if grown else None)

        request = cancel_file(site.results, record.name)
        request.unlink(missing_ok=True)
        progress = execute(scheduler, site, console, observe=track, cancel_file=request)
        if progress.finished or search.complete:
            print_report_of(site.results, record.name)
            tracking.tick(search.record())
            print_line(tracking.finish())
        error = search_forecast_error(site.results, record.name) if search.complete else None
        if error is not None:
            print_line(error)
        console.print(search.outcome, highlight=False)
        if not search.complete:
            explain_and_exit(progress)


def run_trial(trial: Trial, site: Site, *, detach: bool = False) -> None:
    """Run one trial and print its metrics; with ``detach`` submit it as jobs instead, and return at once.

    Raises :class:`typer.Exit` with code 1 if a stage failed or is missing.
    """
    from umd_bench.orchestration.launch import execute, prepare
    from umd_bench.orchestration.monitor.status import metrics_table
    from umd_bench.orchestration.scheduler import Scheduler
    from umd_bench.orchestration.trial_source import Grid

    nodes = prepare([trial], site)
    if detach:
        runs = ", ".join(f"{node.name} {node.key}" for node in nodes.values())
        submit_and_leave(nodes, site, f"`umd-bench logs RUN` ({runs})")
        return
    progress = execute(Scheduler(site.results, Grid(nodes)), site, console)
    console.print(metrics_table(site.results, nodes))
    if not progress.complete:
        explain_and_exit(progress)


def submit_and_leave(nodes: dict[str, Node], site: Site, look: str) -> None:
    """Submit every stage without a result to Slurm, and print how to come back; ``look`` is the command that shows progress."""
    from umd_bench.orchestration.launch import hand_over_to_slurm

    jobs = hand_over_to_slurm(nodes, site)
    print_line(f"{jobs.submitted} stages submitted, {jobs.alive} in the queue from before, {jobs.left} left for later")
    print_line(f"{look} shows how they are; the same command without --detach collects the results and goes on")


def print_report_of(results: Path, name: str, against: dict[str, Any] | None = None) -> None:
    """Write a sweep's tables and figure, and print them; ``against`` (axis -> value) names the arm to compare with."""
    from umd_bench.reporting.report import print_report

    print_report(results, name, console, against=against)


def explain_and_exit(progress: SweepProgress) -> None:
    """Print which stages are missing and why, then raise :class:`typer.Exit` with the exit code that says so."""
    from umd_bench.orchestration.scheduler import explain

    lines, code = explain(progress, shlex.join(["umd-bench", *sys.argv[1:]]))
    for line in lines:
        print_line(line)
    raise typer.Exit(code)
