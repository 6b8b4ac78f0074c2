"""Verbs on this machine and on the forms of files."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from umd_bench.cli.shared import (
    RESULTS,
    ClusterOption,
    DataOption,
    ResultsOption,
    SlurmOption,
    TrackingOption,
    cluster_settings,
    console,
    folder_of_data,
)

app = typer.Typer()


def version_and_exit(asked: bool) -> None:
    """Print which umd-bench this is, of which commit, and the torch it would run on, without importing that."""
    if not asked:
        return
    import importlib.metadata

    import umd_bench
    from umd_bench.orchestration.stage_process.provenance import commit

    of_commit = f" (commit {found})" if (found := commit()) is not None else ""
    try:
        torch = importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        torch = "not installed"
    version = ".".join(map(str, sys.version_info[:3]))
    typer.echo(f"umd-bench {umd_bench.__version__}{of_commit}, python {version}, torch {torch}")
    raise typer.Exit


def options(
    version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=version_and_exit, help="Say which version and commit this is."),
    ] = False,
) -> None:
    """Which corruption of an image auto-encoder serves both the representation and the samples?"""


@app.command()
def schema(
    what: Annotated[str, typer.Argument(help="sweep or trial.")] = "sweep",
) -> None:
    """Print the JSON Schema of a sweep or trial file."""
    from umd_bench.config.sweep.resolve import json_schema

    sys.stdout.write(json_schema(what))


@app.command()
def doctor(
    on: Annotated[
        str | None, typer.Option("--on", help="Check for this executor: with slurm, what would stop jobs there fails.")
    ] = None,
    cluster: ClusterOption = None,
    slurm: SlurmOption = None,
    probe_node: Annotated[
        bool, typer.Option("--probe-node", help="With --on slurm: submit a tiny job that reports what a node is like.")
    ] = False,
    probe_seconds: Annotated[float, typer.Option("--probe-seconds", min=1, help="How long to wait for that job.")] = 120.0,
    mlflow: TrackingOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON object, for programs: findings of a level, what and remedy.")
    ] = False,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Check this machine, and the cluster it talks to: each line passes, warns or fails, with the remedy. Exit code 1 when
    one fails."""
    from umd_bench.config.errors import UserError
    from umd_bench.orchestration.doctor.doctor import Aim, examine
    from umd_bench.orchestration.executors.registry import check_name
    from umd_bench.tracking.projector import look_at_store

    if on is not None:
        check_name(on)
    if probe_node and on != "slurm":
        raise UserError(f"--probe-node asks a node of a cluster: expected --on slurm, found --on {on or '(nothing)'}")
    settings = cluster_settings(on or "(nothing)", cluster, slurm or [])
    aim = Aim(on == "slurm", settings, probe_seconds if probe_node else None, lambda: look_at_store(mlflow, results))
    found = []
    for finding in examine(results, folder_of_data(data_root), aim):
        found.append(finding)
        if not as_json:
            console.print(finding.line(), highlight=False, soft_wrap=True)
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps({"schema": 1, "findings": [asdict(finding) for finding in found]}))
    if any(finding.failed for finding in found):
        raise typer.Exit(1)
