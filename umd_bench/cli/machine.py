"""Verbs on this machine and on the forms of files."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from umd_bench.cli.shared import (
    RESULTS,
    DataOption,
    ResultsOption,
    console,
    folder_of_data,
)

app = typer.Typer()


@app.command()
def schema(
    what: Annotated[str, typer.Argument(help="sweep or trial.")] = "sweep",
) -> None:
    """Print the JSON Schema of a sweep or trial file."""
    from umd_bench.config.resolve import json_schema

    sys.stdout.write(json_schema(what))


@app.command()
def doctor(
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Check this machine: each line passes, warns or fails, with the remedy. Exit code 1 when one fails."""
    from umd_bench.orchestration.doctor import examine

    findings = examine(results, folder_of_data(data_root))
    for finding in findings:
        console.print(finding.line(), highlight=False)
    if any(finding.failed for finding in findings):
        raise typer.Exit(1)
