"""Verbs on a whole sweep: run it, plan it, write its table. One more verb makes the paper's tables and figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from umd_bench.cli.console import console, print_line
from umd_bench.cli.options import (
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
    SplitOption,
    SweepFile,
    TierOption,
    TrackingOption,
    WorkersOption,
    folder_of_data,
    named_arm,
    site_of,
)

if TYPE_CHECKING:
    from umd_bench.config.sweep.resolve import Trial
    from umd_bench.orchestration.forecast.pilot import PilotMeasurement
    from umd_bench.orchestration.graph import Node
    from umd_bench.orchestration.launch import Site

app = typer.Typer()


def list_and_exit(wanted: bool) -> None:
    """Print the shipped sweeps: name, question, default tier and cost, as their files state them."""
    if not wanted:
        return
    from rich.table import Table

    from umd_bench.cli import shipped_sweeps

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
    for column in ("name", "tier"):
        table.add_column(column, no_wrap=True)
    for column in ("question", "cost"):
        table.add_column(column, overflow="fold")
    for name in shipped_sweeps.names():
        one = shipped_sweeps.describe(name)
        table.add_row(one.name, one.tier, one.question, one.cost)
    console.print(table, highlight=False, markup=False)
    print_line(f"The files are in {shipped_sweeps.folder()}; --tier runs the same question at another scale.")
    raise typer.Exit


@app.command()
def sweep(
    file: SweepFile,
    tier: TierOption = None,
    split: SplitOption = None,
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
    list_: Annotated[
        bool, typer.Option("--list", is_eager=True, callback=list_and_exit, help="List the shipped sweeps, and run nothing.")
    ] = False,
) -> None:
    """Run the stages of a sweep that have no result yet, then print its table."""
    from umd_bench.cli.run_sweep import run_sweep
    from umd_bench.cli.shipped_sweeps import find_sweep_file
    from umd_bench.config.sweep.resolve import load_sweep

    root = folder_of_data(data_root)
    resolved = load_sweep(find_sweep_file(file), tier=tier, split=split, sets=sets or [], data_root=root)
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
    run_sweep(resolved, site, mlflow, detach=detach)


@app.command()
def plan(
    file: SweepFile,
    tier: TierOption = None,
    split: SplitOption = None,
    sets: SetOption = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Forecast for this many stages at a time (default: 1).")
    ] = None,
    on: Annotated[
        str | None, typer.Option("--on", help="slurm: forecast for as many jobs at a time as the job settings allow.")
    ] = None,
    cluster: ClusterOption = None,
    slurm: SlurmOption = None,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Measure a few steps or images of each stage that no finished stage resembles."),
    ] = False,
    seconds: Annotated[
        float, typer.Option("--measure-seconds", min=1, help="About how long --measure may take in all.")
    ] = 60.0,
    fuse: FuseOption = "off",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object: the stages and the forecast.")] = False,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Show which stages a sweep would run or reuse and why, and what it would cost. Starts nothing without --measure.

    Built-in data sets need not be packed yet. --measure packs them, and runs a few seconds of each kind of stage that no
    finished stage resembles: on this machine, or with --on slurm in one job.
    """
    from umd_bench.cli.shipped_sweeps import find_sweep_file
    from umd_bench.config.sweep.resolve import load_sweep
    from umd_bench.orchestration.forecast.forecast import make_forecast
    from umd_bench.orchestration.forecast.plan_report import plan_counts, plan_json, plan_table, planned_stages
    from umd_bench.orchestration.fusion.option import check_fuse, planned_lines
    from umd_bench.orchestration.graph import build_graph
    from umd_bench.orchestration.preflight import check_trials
    from umd_bench.orchestration.search.rungs import checked_corners

    root = folder_of_data(data_root)
    resolved = load_sweep(find_sweep_file(file), tier=tier, split=split, sets=sets or [], data_root=root)
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
    terminal = Console(stderr=True) if as_json else console
    measured = _measured(nodes, trials, site, seconds, copies=copies, terminal=terminal) if measure else None
    by_jobs = on == "slurm"
    at_a_time = workers or (min(site.cluster.max_running, site.cluster.max_submitted) if by_jobs else 1)
    pack = site.cluster.pack if by_jobs else 1
    made = make_forecast(results, nodes, at_a_time, copies=copies, data_root=site.data, pack=pack, measurements=measured)
    if as_json:
        shown = {"schema": 1, "sweep": resolved.config.name, "tier": resolved.config.tier, "stages": plan_json(stages)}
        shown |= {"search_trials": total or None, "side_by_side": at_a_time, "forecast": made.facts()}
        typer.echo(json.dumps(shown))
        return
    worker = "worker" if not by_jobs else "job" if pack == 1 else f"job of {pack} stages"
    for line in made.lines(at_a_time, worker, measured=measure):
        print_line(line)
    if search is None:
        for line in planned_lines(fuse, results, list(nodes.values()), at_a_time):
            print_line(line)


@app.command()
def table(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's name.")],
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="AXIS=VALUE[,...]",
            help="Compare the other arms with this one, as in sampler=ddim,steps=20 (default: the sweep's report.baseline).",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object instead of the table: rows, notes and files.")
    ] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Write a sweep's tables and figure again from the run directories, and print them.

    If there is an arm to compare with, a second table shows how much each other arm differs from it, seed by seed.
    """
    from umd_bench.reporting.report import print_report, report_json

    arm = named_arm(against)
    if as_json:
        typer.echo(json.dumps(report_json(results, name, against=arm)))
    else:
        print_report(results, name, console, against=arm)


@app.command()
def paper(
    out: Annotated[Path | None, typer.Option("--out", help="Folder to write into (default: analysis/ in RESULTS).")] = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Write every table and figure of the paper that the results allow, with the published numbers, and an index of them."""
    from analysis.__main__ import make_all

    raise typer.Exit(make_all(results, out))


def _measured(
    nodes: dict[str, Node],
    trials: Sequence[Trial],
    site: Site,
    seconds: float,
    *,
    copies: float | None,
    terminal: Console,
) -> dict[str, PilotMeasurement]:
    """By key: a short measurement of each stage that no finished stage resembles; failures are printed on ``terminal``."""
    from umd_bench.orchestration.forecast.forecast import without_past
    from umd_bench.orchestration.forecast.pilot import measure_stages
    from umd_bench.orchestration.preflight import check_weights, prepare_data

    unknown = without_past(site.results, nodes, copies=copies, data_root=site.data)
    if not unknown:
        return {}
    check_weights(trials, site.results, site.data)
    prepare_data(trials, site.data)
    parents = {node.key: nodes[node.spec.parent_key].spec for node in unknown if node.spec.parent_key is not None}
    stages = [(node.spec, parents.get(node.key)) for node in unknown]
    with terminal.status(f"measuring {len(unknown)} kinds of stages for about {seconds:.0f} s"):
        jobs = site.cluster if site.executor == "slurm" else None
        measured = measure_stages(stages, site.results, site.data, seconds, cluster=jobs)
    for node in unknown:
        why = measured[node.key].error if node.key in measured else f"not reached within {seconds:.0f} s"
        if why:
            print_line(f"not measured: {node.name} {node.key}: {why}", on=terminal)
    return measured
