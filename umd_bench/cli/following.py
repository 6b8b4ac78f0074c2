"""Verbs on what runs or has failed: watch, read its log, give it another try."""

from __future__ import annotations

from typing import Annotated

import typer

from umd_bench.cli.shared import RESULTS, ResultsOption, console

app = typer.Typer()
SweepName = Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's name.")]


@app.command()
def watch(name: SweepName, results: ResultsOption = RESULTS) -> None:
    """Follow a sweep until it is complete, whoever runs it. Ctrl-C leaves and touches nothing."""
    from umd_bench.orchestration.monitor.watch import watch as follow

    follow(results, name, console)


@app.command()
def logs(
    what: Annotated[
        str, typer.Argument(metavar="TRIAL|RUN", help="A trial's name, SWEEP/TRIAL, or a run's key; the beginning is enough.")
    ],
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="How many of each stage.")] = 20,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until it is done or has failed.")] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Show what the stages of a trial, or one run, did last: metrics, warnings, failures, what the process printed."""
    from umd_bench.orchestration.monitor.logs import show_logs
    from umd_bench.orchestration.monitor.lookup import lookup_stages

    try:
        show_logs(lookup_stages(results, what), typer.echo, lines=lines, follow=follow)
    except KeyboardInterrupt:
        raise typer.Exit from None


@app.command()
def retry(
    name: SweepName,
    state: Annotated[
        str | None, typer.Option("--state", help="Only failures of this state: nan, oom, error, died, ...")
    ] = None,
    fingerprint: Annotated[
        str | None, typer.Option("--fingerprint", help="Only failures of this cause, as `status --json` names it.")
    ] = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Give a sweep's failed stages another try, and nothing else. A sweep at work takes them up at once."""
    from umd_bench.orchestration.retry import retry as set_aside

    retried = set_aside(results, name, state=state, fingerprint=fingerprint)
    for stage in retried:
        console.print(str(stage), highlight=False, soft_wrap=True, markup=False)
    if not retried:
        console.print(f"nothing of {name} has failed")
        return
    console.print(f"{len(retried)} stages can run again: a sweep at work takes them up, else `umd-bench sweep FILE` does")
