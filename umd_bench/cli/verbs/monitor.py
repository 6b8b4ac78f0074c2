"""Verbs on sweeps and stages that run, have ended or have failed: follow them, read their logs, stop them, run them again."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from umd_bench.cli.console import console, print_line
from umd_bench.cli.options import RESULTS, ResultsOption

app = typer.Typer()
SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's name.")]


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="SWEEP", help="A sweep's name (default: every sweep).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object; docs/json.md describes its fields.")] = False,
    keys: Annotated[
        bool, typer.Option("--keys", help="With a SWEEP: show the key of each stage; other verbs accept a key as RUN.")
    ] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Show how far sweeps are, read from the run directories."""
    from umd_bench.config.errors import UserError

    if keys and (name is None or as_json):
        raise UserError("--keys adds to the table of one sweep: expected a SWEEP, and no --json, which prints keys anyway")
    if as_json:
        from umd_bench.orchestration.monitor.stage_status import status_json

        typer.echo(json.dumps(status_json(results, name)))
        return
    from umd_bench.orchestration.monitor.status import status_table

    console.print(status_table(results, name, keys=keys))


@app.command()
def watch(name: SweepName, results: ResultsOption = RESULTS) -> None:
    """Follow a sweep until it is complete, even if another command runs it. Ctrl-C ends only the watching."""
    from umd_bench.orchestration.monitor.watch import watch as follow

    follow(results, name, console)


@app.command()
def logs(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TRIAL|RUN", help="A trial's name, SWEEP/TRIAL, or a run's key; the beginning of one of these is enough."
        ),
    ],
    lines: Annotated[
        int, typer.Option("--lines", "-n", min=1, help="How many lines to show of each stage, counted back from the last.")
    ] = 20,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on printing until every stage is done or has failed.")
    ] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Show what the stages of a trial, or one run, did last: metrics, warnings, failures and printed output."""
    from umd_bench.orchestration.monitor.logs import show_logs
    from umd_bench.orchestration.monitor.lookup import lookup_stages

    try:
        show_logs(lookup_stages(results, target), typer.echo, lines=lines, follow=follow)
    except KeyboardInterrupt:
        raise typer.Exit from None


@app.command()
def retry(
    name: SweepName,
    state: Annotated[
        str | None, typer.Option("--state", help="Only failures of this state: nan, oom, error, died, ...")
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="Only failures with this fingerprint, as `status --json` shows it.")
    ] = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Let a sweep's failed stages run again. If a command is running the sweep, it takes them up at once."""
    from umd_bench.orchestration.retry import retry as retry_failed

    retried = retry_failed(results, name, state=state, fingerprint=fingerprint)
    for stage in retried:
        print_line(str(stage))
    if not retried:
        console.print(f"nothing of {name} has failed")
        return
    print_line(
        f"{len(retried)} stages can run again: a command that is running the sweep takes them up; "
        "else run `umd-bench sweep FILE`"
    )


@app.command()
def cancel(
    target: Annotated[
        str, typer.Argument(metavar="SWEEP|TRIAL|RUN", help="A sweep's name, or a trial or run as `logs` takes it.")
    ],
    results: ResultsOption = RESULTS,
) -> None:
    """Cancel jobs, and stop the command that runs a sweep. Running stages save their state first."""
    from umd_bench.orchestration.detach import cancel_jobs
    from umd_bench.orchestration.monitor.lookup import lookup_keys
    from umd_bench.store import cancel_file

    sweep, keys = lookup_keys(results, target)
    if sweep is not None:
        cancel_file(results, sweep).touch()
    ended, busy = cancel_jobs(results, keys)
    command = "" if sweep is None else f"; a command that is running {sweep} stops as soon as it can"
    print_line(f"{ended} stages ended, {busy} still save their state{command}")
