"""Verbs on sweeps: run, plan, look, report."""

from __future__ import annotations

from typing import Annotated

import typer

from umd_bench.cli.shared import (
    RESULTS,
    ClusterOption,
    DataOption,
    GpusOption,
    OnOption,
    RayAddressOption,
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
    ray_settings,
    run_search,
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
    ray_address: RayAddressOption = None,
    gpus_per_stage: GpusOption = None,
    detach: Annotated[bool, typer.Option("--detach", help="With --on slurm: submit everything and leave.")] = False,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
    mlflow: TrackingOption = None,
) -> None:
    """Run what a sweep still lacks, then print its table."""
    from umd_bench.config.errors import UserError
    from umd_bench.config.resolve import load_sweep
    from umd_bench.orchestration.execute import Site, execute, hand_over_to_slurm, prepare
    from umd_bench.orchestration.forecast import forecast, forecast_error, keep_forecast
    from umd_bench.orchestration.plan import sweep_record
    from umd_bench.store import StageState, cancel_request, write_sweep
    from umd_bench.tracking.background import BackgroundProjection

    resolved = load_sweep(file, tier=tier, sets=sets or [])
    jobs, ray = cluster_settings(on, cluster, slurm or []), ray_settings(on, ray_address, gpus_per_stage)
    site = Site(results, folder_of_data(data_root), on, workers, jobs, ray)
    if resolved.config.search is not None:
        if detach:
            raise UserError("--detach is not accepted: a search is suggested by the command's own process, which has to stay")
        run_search(resolved, site, mlflow)
        return
    nodes = prepare(resolved.trials, site)
    record = sweep_record(resolved)
    write_sweep(results, record)
    keep_forecast(results, record.name, forecast(results, nodes, 1, data_root=site.data))
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
        off_by = forecast_error(results, record.name)
        if off_by is not None:
            console.print(off_by, highlight=False, soft_wrap=True)
    if not progress.complete:
        explain_and_exit(progress)


@app.command()
def plan(
    file: SweepFile,
    tier: TierOption = None,
    sets: SetOption = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Stages side by side, for the number of waves.")] = 1,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Say what a sweep would run, reuse and cost, and why. Starts nothing, and needs no data but packs of your own."""
    from umd_bench.config.resolve import load_sweep
    from umd_bench.orchestration.checks import check_trials
    from umd_bench.orchestration.forecast import forecast
    from umd_bench.orchestration.plan import build_graph, plan_table

    resolved = load_sweep(file, tier=tier, sets=sets or [])
    search = resolved.config.search
    trials = resolved.trials if search is None else resolved.corners()
    folder = folder_of_data(data_root)
    check_trials(trials, folder)
    nodes, copies = build_graph(results, trials), 1.0
    console.print(plan_table(results, nodes))
    if search is not None:
        total = search.trials * len(resolved.arms) * len(resolved.config.seeds)
        copies = total / len(trials)
        console.print(f"a search: at most {total} trials between these, the corners of its space", highlight=False)
    for line in forecast(results, nodes, workers, copies=copies, data_root=folder).lines(workers):
        console.print(line, highlight=False, soft_wrap=True)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="A sweep's name; all of them when left out.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, for programs; docs/search.md has its fields.")
    ] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Show where sweeps stand, read from the run directories."""
    if as_json:
        import json

        from umd_bench.orchestration.survey import status_json

        typer.echo(json.dumps(status_json(results, name)))
        return
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
