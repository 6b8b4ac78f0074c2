"""Verbs on the tracking store."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from umd_bench.cli.shared import (
    RESULTS,
    ResultsOption,
    console,
)

app = typer.Typer(help="The tracking store: rebuild it from run directories, or look at it.", no_args_is_help=True)


@app.command("push")
def mlflow_push(
    name: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="A sweep's name; all of them when left out.")] = None,
    uri: Annotated[str | None, typer.Option("--uri", help="Tracking URI (default: SQLite in the results folder).")] = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Bring the tracking store up to the run directories; pushing twice adds nothing."""
    from umd_bench.tracking.projector import push

    for line in push(results, name, uri):
        console.print(line, highlight=False, soft_wrap=True)


@app.command("ui")
def mlflow_ui(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on loopback.")] = 5000,
    results: ResultsOption = RESULTS,
) -> None:
    """Open MLflow's page on the default store, until Ctrl-C."""
    from umd_bench.tracking.projector import default_uri

    arguments = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", default_uri(results), "--port", str(port)]
    os.execv(sys.executable, arguments)
