"""Verbs on sweeps: run, plan, look, report."""

from __future__ import annotations

from typing import Annotated

import typer

from umd_bench.cli.shared import (
    RESULTS,
    ClusterOption,
    DataOption,
    OnOption,
    ResultsOption,
    SetOption,
    SlurmOption,
    SweepFile,
    TierOption,
    TrackingOption,
    WorkersOption,
    cluster_settings,
    console,
    explain_and_exit,
    folder_of_data,
    print_report_of,
)

app = typer.Typer()


@app.command()
def sweep(
    file: SweepFile,
    tier: TierOption = None,
    sets: SetOption = None,
    on: OnOption = "ray",
    workers: WorkersOption = None,
    cluster: ClusterOption = None,
    slurm: SlurmOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="With --on slurm: submit everything and leave.")] = False,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
    mlflow: TrackingOption = None,
) -> None:
    """Run what a sweep still lacks, then print its table."""
    from umd_bench.config.resolve import load_sweep
    from umd_bench.orchestration.execute import Site, execute, hand_over_to_slurm, prepare
    from umd_bench.orchestration.plan import sweep_record
    from umd_bench.store import StageState, cancel_request, write_sweep
    from umd_bench.tracking.background import BackgroundProjection

    resolved = load_sweep(file, tier=tier, sets=sets or [])
    site = Site(results, folder_of_data(data_root), on, workers, cluster_settings(on, cluster, slurm or []))
    nodes = prepare(resolved.trials, site)
    record = sweep_record(resolved)
    write_sweep(results, record)
    reused = sum(node.state is StageState.DONE for node in nodes.values())
    console.print(f"{record.name} ({record.tier}): {len(record.trials)} trials, {len(nodes)} stages, {reused} reused")
    request = cancel_request(results, record.name)
    request.unlink(missing_ok=True)
    if detach:
        handed = hand_over_to_slurm(nodes, site)
        for line in (
            f"{handed.submitted} stages submitted, {handed.alive} in the queue from before, {handed.left} left for later",
            f"`umd-bench status {record.name}` looks; the same command without --detach collects and goes on",
        ):
            console.print(line, highlight=False, soft_wrap=True)
        return
    tracking = BackgroundProjection(mlflow, results, record)
    progress = execute(nodes, resolved.trials, site, console, on_change=lambda _: tracking.tick(), cancelled=request.exists)
    if progress.finished or progress.reused:
        print_report_of(results, record.name)
        console.print(tracking.finish(), highlight=False, soft_wrap=True)
    if not progress.complete:
        explain_and_exit(progress)


@app.command()
def plan(
    file: SweepFile,
    tier: TierOption = None,
    sets: SetOption = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Say what a sweep would run, what it would reuse and why. Starts nothing, needs no data."""
    from umd_bench.config.resolve import load_sweep
    from umd_bench.orchestration.checks import check_trials
    from umd_bench.orchestration.plan import build_graph, plan_table

    resolved = load_sweep(file, tier=tier, sets=sets or [])
    check_trials(resolved.trials)
    console.print(plan_table(results, build_graph(results, resolved.trials)))


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="A sweep's name; all of them when left out.")] = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Show where sweeps stand, read from the run directories."""
    from umd_bench.orchestration.status import status_table

    console.print(status_table(results, name))


@app.command()
def cancel(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's name.")],
    results: ResultsOption = RESULTS,
) -> None:
    """Take a sweep's jobs back and ask commands at work on it to stop; what runs saves its state first."""
    from umd_bench.orchestration.detached import cancel_jobs
    from umd_bench.store import cancel_request, read_sweep

    record = read_sweep(results, name)
    cancel_request(results, name).touch()
    keys = dict.fromkeys(key for trial in record.trials for key in trial.stages.values())
    ended, busy = cancel_jobs(results, keys)
    console.print(f"{ended} jobs ended, {busy} still save their state; a command at work on {name} stops as soon as it can")


@app.command()
def table(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's name.")],
    results: ResultsOption = RESULTS,
) -> None:
    """Write a sweep's tables and figure anew from the run directories, and print the table."""
    print_report_of(results, name)
