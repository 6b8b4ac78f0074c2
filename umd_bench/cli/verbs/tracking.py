"""``umd-bench mlflow``: verbs on the MLflow tracking store."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from umd_bench.cli.console import print_line
from umd_bench.cli.options import RESULTS, ResultsOption

app = typer.Typer(help="MLflow: fill the tracking store from run directories, or browse it.", no_args_is_help=True)


@app.command("push")
def mlflow_push(
    name: Annotated[str | None, typer.Argument(metavar="SWEEP", help="A sweep's name (default: every sweep).")] = None,
    uri: Annotated[str | None, typer.Option("--uri", help="Tracking URI (default: SQLite in the results folder).")] = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Copy from the run directories of sweeps what the tracking store still lacks; a second push adds nothing."""
    from umd_bench.tracking.projector import push

    for line in push(results, name, uri):
        print_line(line)


@app.command("ui")
def mlflow_ui(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on this machine's loopback address.")] = 5000,
    results: ResultsOption = RESULTS,
) -> None:
    """Serve MLflow's web page of the default store until Ctrl-C."""
    from umd_bench.tracking.projector import default_uri

    arguments = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", default_uri(results), "--port", str(port)]
    os.execv(sys.executable, arguments)
