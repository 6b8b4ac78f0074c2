"""Run a resolved sweep (a grid or a search) or one trial, and print its results.

Verbs import this module when they run, since it imports the orchestration. The report is imported only once there are results.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import typer

from umd_bench.cli.console import console, print_line
from umd_bench.cli.sweep_work import open_work
from umd_bench.config.errors import UserError
from umd_bench.config.sweep.resolve import Sweep, Trial
from umd_bench.config.sweep.tier_card import read_card
from umd_bench.orchestration.fusion.option import search_lines
from umd_bench.orchestration.graph import Node
from umd_bench.orchestration.launch import Site, execute, hand_over_to_slurm, prepare
from umd_bench.orchestration.monitor.status import metrics_table
from umd_bench.orchestration.scheduler import Scheduler, explain
from umd_bench.orchestration.trial_source import Grid, SweepProgress
from umd_bench.store import cancel_file
from umd_bench.tracking.background_projection import BackgroundProjection


def run_sweep(sweep: Sweep, site: Site, mlflow: str | None, *, detach: bool = False) -> None:
    """Run the stages that a sweep still lacks, then print its table; with ``detach`` submit them as jobs and return at once.

    ``mlflow`` is the tracking store's URI, None for the default one, or ``off``. Raises :class:`UserError` for a sweep that
    cannot run. If it is not complete at the end, raises :class:`typer.Exit`, with code 130 if a person stopped it, else 1.
    """
    if sweep.config.search is not None:
        for line in search_lines(site.fuse, site.executor):
            print_line(line)
        if detach:
            raise UserError("--detach is not accepted: a search makes its suggestions in this command, which has to stay")
    with open_work(sweep, site) as work:
        scheduler = Scheduler(site.results, work.source)
        record = work.record()
        cancel = cancel_file(site.results, record.name)
        cancel.unlink(missing_ok=True)  # a request to an earlier command; one that arrives from here on is obeyed
        console.print(f"{record.name} ({record.tier}, {read_card(record.tier).status}): {work.summary}")
        if detach:
            work.begin()
            _submit_and_leave(dict(scheduler.progress.nodes), site, f"`umd-bench status {record.name}`")
            return
        tracking = BackgroundProjection(mlflow, site.results, record)
        n_trials = len(scheduler.progress.trials)

        def track(progress: SweepProgress) -> None:
            nonlocal n_trials
            grown, n_trials = len(progress.trials) > n_trials, len(progress.trials)
            tracking.tick(work.record() if grown else None)

        progress = execute(scheduler, site, console, on_start=work.begin, observe=track, cancel_file=cancel)
        if progress.finished or work.had_results(progress):
            _print_report(site.results, record.name)
            if work.source.grows:
                tracking.tick(work.record())
            print_line(tracking.finish())
            if (error := work.forecast_error()) is not None:
                print_line(error)
        work.print_end()
        if not work.is_complete(progress):
            explain_and_exit(progress)


def run_trial(trial: Trial, site: Site, *, detach: bool = False) -> None:
    """Run one trial and print its metrics; with ``detach`` submit it as jobs instead, and return at once.

    If a stage has no result at the end, raises :class:`typer.Exit`, with code 130 if a person stopped the command, else 1.
    """
    nodes = prepare([trial], site)
    if detach:
        runs = ", ".join(f"{node.name} {node.key}" for node in nodes.values())
        _submit_and_leave(nodes, site, f"`umd-bench logs RUN` ({runs})")
        return
    progress = execute(Scheduler(site.results, Grid(nodes)), site, console)
    console.print(metrics_table(site.results, nodes))
    if not progress.complete:
        explain_and_exit(progress)


def _submit_and_leave(nodes: dict[str, Node], site: Site, status: str) -> None:
    """Submit every stage without a result to Slurm, and print how to continue; ``status`` is a command that shows progress."""
    jobs = hand_over_to_slurm(nodes, site)
    print_line(f"{jobs.submitted} stages submitted, {jobs.alive} in the queue from before, {jobs.left} left for later")
    print_line(f"{status} shows their progress; the same command without --detach collects the results and continues")


def explain_and_exit(progress: SweepProgress) -> None:
    """Print which stages are missing and why, then raise :class:`typer.Exit` with the matching exit code."""
    lines, code = explain(progress, shlex.join(["umd-bench", *sys.argv[1:]]))
    for line in lines:
        print_line(line)
    raise typer.Exit(code)


def _print_report(results: Path, name: str) -> None:
    from umd_bench.reporting.report import print_report

    print_report(results, name, console)
