"""The verb that checks this machine and the cluster it talks to."""

from __future__ import annotations

from typing import Annotated

import typer

from umd_bench.cli.console import console
from umd_bench.cli.options import (
    RESULTS,
    ClusterOption,
    DataOption,
    ResultsOption,
    SlurmOption,
    TrackingOption,
    cluster_settings,
    folder_of_data,
)

app = typer.Typer()


@app.command()
def doctor(
    on: Annotated[
        str | None,
        typer.Option("--on", help="Check for this executor; with slurm, everything that would stop jobs counts as a failure."),
    ] = None,
    cluster: ClusterOption = None,
    slurm: SlurmOption = None,
    probe_node: Annotated[
        bool, typer.Option("--probe-node", help="With --on slurm: submit a tiny job that describes a compute node.")
    ] = False,
    probe_seconds: Annotated[
        float, typer.Option("--probe-seconds", min=1, help="How many seconds to wait for the job of --probe-node.")
    ] = 120.0,
    mlflow: TrackingOption = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object: each finding's level, what it found and a remedy.")
    ] = False,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Check this machine and its cluster. Each line passes, warns or fails; a problem comes with a remedy if one is known.

    The exit code is 1 if a check fails.
    """
    from umd_bench.config.errors import UserError
    from umd_bench.orchestration.doctor.doctor import DoctorOptions, examine
    from umd_bench.orchestration.executors.registry import check_name
    from umd_bench.tracking.projector import check_store

    if on is not None:
        check_name(on)
    if probe_node and on != "slurm":
        raise UserError(f"--probe-node submits a job to a cluster: expected --on slurm, found --on {on or '(nothing)'}")
    settings = cluster_settings(on or "(nothing)", cluster, slurm or [])
    options = DoctorOptions(
        slurm=on == "slurm",
        cluster=settings,
        probe_seconds=probe_seconds if probe_node else None,
        check_tracking=lambda: check_store(mlflow, results),
    )
    findings = []
    for finding in examine(results, folder_of_data(data_root), options):
        findings.append(finding)
        if not as_json:
            console.print(finding.line(), highlight=False, soft_wrap=True)
    if as_json:
        import json
        from dataclasses import asdict

        typer.echo(json.dumps({"schema": 1, "findings": [asdict(finding) for finding in findings]}))
    if any(finding.failed for finding in findings):
        raise typer.Exit(1)
