"""What the verbs share: their options, the terminal, and how a trial is run and explained."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

if TYPE_CHECKING:
    from umd_bench.config.launch.cluster import ClusterConfig
    from umd_bench.config.launch.ray import RayConfig
    from umd_bench.config.sweep.resolve import Sweep, Trial
    from umd_bench.orchestration.forecast.pilot import Measured
    from umd_bench.orchestration.graph import Node
    from umd_bench.orchestration.launch import Site
    from umd_bench.orchestration.scheduler import Progress

PLAIN_WIDTH = 140  # columns of a table that is written to a file or a pipe
console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)

ResultsOption = Annotated[Path, typer.Option("--results", envvar="UMD_BENCH_RESULTS", help="Results folder.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data-root", envvar="UMD_BENCH_DATA", help="Folder of packed data sets (default: the user's cache)."),
]
SizeOption = Annotated[int | None, typer.Option("--size", min=1, help="Image side in pixels, where the data set has none.")]
TierOption = Annotated[
    str | None, typer.Option("--tier", help="Scale: digits, fashion, emoji64, imagenet64 and so on, or a YAML file.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change one field; may be repeated.")
]
OnOption = Annotated[
    str,
    typer.Option(
        "--on", help="Executor: ray (worker processes), inline (this process), slurm (jobs), submitit-local (jobs here)."
    ),
]
ClusterOption = Annotated[
    str | None, typer.Option("--cluster", metavar="NAME|FILE", help="Settings of jobs: clusters/NAME.yaml, or a file.")
]
SlurmOption = Annotated[
    list[str] | None,
    typer.Option("--slurm", metavar="KEY=VALUE", help="One setting of jobs: partition, time, gpus, ...; may be repeated."),
]
RayAddressOption = Annotated[
    str | None, typer.Option("--ray-address", metavar="HOST:PORT|auto", help="With --on ray: a Ray that runs already.")
]
GpusOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-stage",
        help="With --on ray: GPUs a stage asks for, such as 0.25 (default: an equal share of this machine's).",
    ),
]
DetachOption = Annotated[bool, typer.Option("--detach", help="With --on slurm: submit everything and leave.")]
FuseOption = Annotated[
    str, typer.Option("--fuse", help="Train stages of one shape as one: off, auto (where measured to be faster), on.")
]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Stages side by side (default: cores / threads).")]
TrackingOption = Annotated[
    str | None,
    typer.Option("--mlflow", metavar="URI", help="MLflow tracking URI, or 'off' (default: SQLite in the results folder)."),
]
SweepFile = Annotated[Path, typer.Argument(help="A sweep's YAML file.")]
RESULTS = Path("results")
JOB_EXECUTORS = ("slurm", "submitit-local")


def folder_of_data(option: Path | None) -> Path:
    from umd_bench.data.packs.pack import data_root

    return option if option is not None else data_root()


def cluster_settings(on: str, name: str | None, options: list[str]) -> ClusterConfig:
    from umd_bench.config.errors import UserError
    from umd_bench.config.launch.cluster import load_cluster

    if (name is not None or options) and on not in JOB_EXECUTORS:
        given = "--cluster" if name is not None else "--slurm"
        raise UserError(f"{given} is for jobs: expected --on {' or --on '.join(JOB_EXECUTORS)}, found --on {on}")
    return load_cluster(name, options)


def ray_settings(on: str, address: str | None, gpus: float | None) -> RayConfig:
    from umd_bench.config.documents.document import Document, Place
    from umd_bench.config.documents.validation import validate
    from umd_bench.config.errors import UserError
    from umd_bench.config.launch.ray import RayConfig

    names = {"address": "--ray-address", "gpus": "--gpus-per-stage"}
    document = Document({})
    for name, value in (("address", address), ("gpus", gpus)):
        if value is None:
            continue
        if on != "ray":
            raise UserError(f"{names[name]} is for Ray: expected --on ray, found --on {on}")
        document = document.patched((name,), value, Place(names[name]))
    return validate(RayConfig, document)


def site_of(
    on: str,
    results: Path,
    data_root: Path | None,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    slurm: list[str] | None = None,
    ray_address: str | None = None,
    gpus_per_stage: float | None = None,
    detach: bool = False,
    fuse: str = "off",
    searching: bool = False,
) -> Site:
    """Where a command runs, from its options; what cannot be is refused before anything is written."""
    from umd_bench.config.errors import UserError
    from umd_bench.orchestration.executors.registry import check_name
    from umd_bench.orchestration.fusion.policy import check_fuse
    from umd_bench.orchestration.launch import Site

    check_name(on)
    check_fuse(fuse, on, searching=searching, joined=ray_address is not None)
    if detach and on != "slurm":
        raise UserError(f"--detach leaves the work to a cluster: expected --on slurm, found --on {on}")
    jobs, ray = cluster_settings(on, cluster, slurm or []), ray_settings(on, ray_address, gpus_per_stage)
    return Site(results, folder_of_data(data_root), on, workers, jobs, ray, fuse)


def run_trial(trial: Trial, site: Site, *, detach: bool = False) -> None:
    from umd_bench.orchestration.launch import execute, prepare
    from umd_bench.orchestration.monitor.status import metrics_table

    nodes = prepare([trial], site)
    if detach:
        leave(nodes, site, f"`umd-bench logs RUN` ({', '.join(f'{node.name} {node.key}' for node in nodes.values())})")
        return
    progress = execute(nodes, [trial], site, console)
    console.print(metrics_table(site.results, nodes))
    if not progress.complete:
        explain_and_exit(progress)


def leave(nodes: dict[str, Node], site: Site, looks: str) -> None:
    """Hand everything to the cluster and say how to come back; ``looks`` is the command that shows how it stands."""
    from umd_bench.orchestration.launch import hand_over_to_slurm

    handed = hand_over_to_slurm(nodes, site)
    for line in (
        f"{handed.submitted} stages submitted, {handed.alive} in the queue from before, {handed.left} left for later",
        f"{looks} looks; the same command without --detach collects and goes on",
    ):
        console.print(line, highlight=False, soft_wrap=True)


def measured_for(
    nodes: dict[str, Node], trials: Sequence[Trial], site: Site, seconds: float, *, copies: float | None, quiet: bool = False
) -> dict[str, Measured]:
    """Measure what no past stage tells of, and say on the terminal what could not be (if ``quiet``, on standard error)."""
    from umd_bench.orchestration.forecast.forecast import without_past
    from umd_bench.orchestration.forecast.pilot import measure_stages
    from umd_bench.orchestration.preflight import check_weights, prepare_data

    unknown = without_past(site.results, nodes, copies=copies, data_root=site.data)
    if not unknown:
        return {}
    check_weights(trials, site.results, site.data)
    prepare_data(trials, site.data)
    parents = {node.key: nodes[node.spec.parent_key].spec for node in unknown if node.spec.parent_key is not None}
    asked = [(node.spec, parents.get(node.key)) for node in unknown]
    terminal = Console(stderr=True) if quiet else console
    with terminal.status(f"measuring {len(unknown)} kinds of stages for about {seconds:.0f} s"):
        jobs = site.cluster if site.executor == "slurm" else None
        found = measure_stages(asked, site.results, site.data, seconds, cluster=jobs)
    for node in unknown:
        why = found[node.key].error if node.key in found else f"not reached within {seconds:.0f} s"
        if why:
            terminal.print(f"not measured: {node.name} {node.key}: {why}", highlight=False, soft_wrap=True)
    return found


def run_search(sweep: Sweep, site: Site, mlflow: str | None) -> None:
    """Run a search to its last suggestion; one that fails is a result of the search, not a failure of the command."""
    from umd_bench.orchestration.forecast.accuracy import keep_forecast, search_forecast_error
    from umd_bench.orchestration.forecast.forecast import forecast
    from umd_bench.orchestration.graph import build_graph
    from umd_bench.orchestration.launch import execute, prepare
    from umd_bench.orchestration.search.rungs import checked_corners
    from umd_bench.orchestration.search.search import Search
    from umd_bench.store import cancel_request
    from umd_bench.tracking.background import BackgroundProjection

    with Search(sweep, site.results, lambda trials: prepare(trials, site), data_root=site.data) as search:
        record = search.record()
        console.print(f"{record.name} ({record.tier}): {search.outcome}")
        corners = checked_corners(sweep)
        share = search.n_left * len(sweep.config.seeds) / len(corners)
        if share > 0:
            made = forecast(site.results, build_graph(site.results, corners), 1, copies=share, data_root=site.data)
            keep_forecast(site.results, record.name, made)
        tracking = BackgroundProjection(mlflow, site.results, record)

        def grow(progress: Progress) -> list[Trial]:
            added = search.advance(progress)
            tracking.tick(search.record() if added else None)
            return added

        request = cancel_request(site.results, record.name)
        request.unlink(missing_ok=True)
        progress = execute(
            search.nodes, search.trials, site, console, grow=grow, dropped=search.dropped, cancelled=request.exists
        )
        if progress.finished or search.complete:
            print_report_of(site.results, record.name)
            tracking.tick(search.record())
            console.print(tracking.finish(), highlight=False, soft_wrap=True)
        off_by = search_forecast_error(site.results, record.name) if search.complete else None
        if off_by is not None:
            console.print(off_by, highlight=False, soft_wrap=True)
        console.print(search.outcome, highlight=False)
        if not search.complete:
            explain_and_exit(progress)


def named_arm(against: str | None) -> dict[str, Any] | None:
    """Axis -> value of what ``--against`` says."""
    from umd_bench.config.errors import UserError
    from umd_bench.config.sweep.arms import parsed_arm

    try:
        return None if against is None else parsed_arm(against)
    except ValueError as error:
        raise UserError(f"--against {against!r} is not accepted: {error}") from None


def print_report_of(results: Path, name: str, against: dict[str, Any] | None = None) -> None:
    from umd_bench.reporting.report import print_report

    print_report(results, name, console, against=against)


def explain_and_exit(progress: Progress) -> None:
    from umd_bench.orchestration.scheduler import explain

    lines, code = explain(progress, shlex.join(["umd-bench", *sys.argv[1:]]))
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    raise typer.Exit(code)
