"""Verbs on sweeps: run, plan, look, report."""

from __future__ import annotations

from typing import Annotated

import typer

from umd_bench.cli.shared import (
    RESULTS,
    ClusterOption,
    DataOption,
    DetachOption,
    FuseOption,
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
    console,
    explain_and_exit,
    leave,
    measured_for,
    named_arm,
    print_report_of,
    run_search,
    site_of,
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
    detach: DetachOption = False,
    fuse: FuseOption = "off",
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
    mlflow: TrackingOption = None,
) -> None:
    """Run what a sweep still lacks, then print its table."""
    from umd_bench.config.errors import UserError
    from umd_bench.config.sweep.resolve import load_sweep
    from umd_bench.orchestration.forecast.accuracy import forecast_error, keep_forecast
    from umd_bench.orchestration.forecast.forecast import forecast
    from umd_bench.orchestration.fusion.policy import why_apart
    from umd_bench.orchestration.graph import sweep_record
    from umd_bench.orchestration.launch import execute, prepare
    from umd_bench.store import StageState, cancel_request, write_sweep
    from umd_bench.tracking.background import BackgroundProjection

    resolved = load_sweep(file, tier=tier, sets=sets or [])
    site = site_of(
        on,
        results,
        data_root,
        workers=workers,
        cluster=cluster,
        slurm=slurm,
        ray_address=ray_address,
        gpus_per_stage=gpus_per_stage,
        detach=detach,
        fuse=fuse,
        searching=resolved.config.search is not None,
    )
    if resolved.config.search is not None:
        if fuse != "off":
            console.print(f"nothing is trained as one: {why_apart(on, searching=True)}", highlight=False, soft_wrap=True)
        if detach:
            raise UserError("--detach is not accepted: a search is suggested by the command's own process, which has to stay")
        run_search(resolved, site, mlflow)
        return
    nodes = prepare(resolved.trials, site)
    record = sweep_record(resolved)
    request = cancel_request(results, record.name)
    request.unlink(missing_ok=True)  # an earlier command's; one that comes while this one starts is heard

    def begin() -> None:
        write_sweep(results, record)
        keep_forecast(results, record.name, forecast(results, nodes, 1, data_root=site.data))

    reused = sum(node.state is StageState.DONE for node in nodes.values())
    console.print(f"{record.name} ({record.tier}): {len(record.trials)} trials, {len(nodes)} stages, {reused} reused")
    if detach:
        begin()
        leave(nodes, site, f"`umd-bench status {record.name}`")
        return
    tracking = BackgroundProjection(mlflow, results, record)
    progress = execute(
        nodes, resolved.trials, site, console, on_change=lambda _: tracking.tick(), cancelled=request.exists, on_start=begin
    )
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
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Stages side by side, for the number of waves (default: 1).")
    ] = None,
    on: Annotated[str | None, typer.Option("--on", help="slurm: as many jobs side by side as the settings allow.")] = None,
    cluster: ClusterOption = None,
    slurm: SlurmOption = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure what no past stage tells of: some steps and images, thrown away.")
    ] = False,
    seconds: Annotated[float, typer.Option("--measure-seconds", min=1, help="Of work, for all that is measured.")] = 60.0,
    fuse: FuseOption = "off",
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, for programs: stages, what and why, and the forecast.")
    ] = False,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Say what a sweep would run, reuse and cost, and why. Starts nothing, and needs no data but packs of your own.

    With --measure the data sets are packed, and some seconds of each kind of stage are run, here or (--on slurm) in one job.
    """
    from umd_bench.config.sweep.resolve import load_sweep
    from umd_bench.orchestration.forecast.forecast import forecast
    from umd_bench.orchestration.forecast.plan_report import plan_counts, plan_json, plan_table, planned_stages
    from umd_bench.orchestration.fusion.measure import planned
    from umd_bench.orchestration.fusion.policy import check_fuse
    from umd_bench.orchestration.graph import build_graph
    from umd_bench.orchestration.preflight import check_trials
    from umd_bench.orchestration.search.rungs import checked_corners

    resolved = load_sweep(file, tier=tier, sets=sets or [])
    site = site_of(on or "ray", results, data_root, workers=workers, cluster=cluster, slurm=slurm)
    search = resolved.config.search
    check_fuse(fuse, on or "inline", searching=search is not None)
    trials = resolved.trials if search is None else checked_corners(resolved)
    check_trials(trials, site.data)
    nodes = build_graph(results, trials)
    stages = planned_stages(results, nodes)
    total = 0 if search is None else search.trials * len(resolved.arms) * len(resolved.config.seeds)
    copies = None if search is None else total / len(trials)
    if not as_json:
        console.print(plan_table(stages))
        console.print(plan_counts(stages), highlight=False)
        if search is not None:
            many = f"{total} trials, {total * len(trials[0].specs)} stages"
            console.print(f"a search: at most {many} in all, between these corners of its space", highlight=False)
    found = measured_for(nodes, trials, site, seconds, copies=copies, quiet=as_json) if measure else None
    by_jobs = on == "slurm"
    at_a_time = workers or (min(site.cluster.max_running, site.cluster.max_submitted) if by_jobs else 1)
    pack = site.cluster.pack if by_jobs else 1
    made = forecast(results, nodes, at_a_time, copies=copies, data_root=site.data, pack=pack, measured=found)
    if as_json:
        import json

        told = {"schema": 1, "sweep": resolved.config.name, "tier": resolved.config.tier, "stages": plan_json(stages)}
        told |= {"search_trials": total or None, "side_by_side": at_a_time, "forecast": made.facts()}
        typer.echo(json.dumps(told))
        return
    side = "worker" if not by_jobs else "job" if pack == 1 else f"job of {pack} stages"
    for line in made.lines(at_a_time, side, measured=measure):
        console.print(line, highlight=False, soft_wrap=True)
    if search is None:
        for line in planned(results, nodes.values(), at_a_time, fuse):
            console.print(line, highlight=False, soft_wrap=True)


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="A sweep's name; all of them when left out.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, for programs; docs/search.md has its fields.")
    ] = False,
    keys: Annotated[bool, typer.Option("--keys", help="Of a SWEEP: the key of each stage, its RUN for other verbs.")] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Show where sweeps stand, read from the run directories."""
    from umd_bench.config.errors import UserError

    if keys and (name is None or as_json):
        raise UserError("--keys is for one sweep's table: expected a SWEEP, and no --json, which has the keys in it")
    if as_json:
        import json

        from umd_bench.orchestration.monitor.stage_status import status_json

        typer.echo(json.dumps(status_json(results, name)))
        return
    from umd_bench.orchestration.monitor.status import status_table

    console.print(status_table(results, name, keys=keys))


@app.command()
def cancel(
    what: Annotated[
        str, typer.Argument(metavar="SWEEP|TRIAL|RUN", help="A sweep's name, or a trial or run as `logs` takes it.")
    ],
    results: ResultsOption = RESULTS,
) -> None:
    """Take jobs back, and ask commands at work on a sweep to stop; what runs saves its state first."""
    from umd_bench.orchestration.detach import cancel_jobs
    from umd_bench.orchestration.monitor.lookup import lookup_keys
    from umd_bench.store import cancel_request

    sweep, keys = lookup_keys(results, what)
    if sweep is not None:
        cancel_request(results, sweep).touch()
    ended, busy = cancel_jobs(results, keys)
    at_work = "" if sweep is None else f"; if a command is at work on {sweep}, it stops as soon as it can"
    console.print(f"{ended} jobs ended, {busy} still save their state{at_work}", highlight=False, soft_wrap=True)


@app.command()
def table(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's name.")],
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="AXIS=VALUE[,...]", help="The arm to compare the others with, as in sampler=ddim,steps=20."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object instead of the table, for programs: rows, notes and files.")
    ] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Write a sweep's tables and figure anew from the run directories, and print them.

    Where an arm to compare with is named, here or as report.baseline in the sweep's file, a second table has the differences
    to it, taken seed by seed.
    """
    arm = named_arm(against)
    if as_json:
        import json

        from umd_bench.reporting.report import report_json

        typer.echo(json.dumps(report_json(results, name, against=arm)))
        return
    print_report_of(results, name, arm)
