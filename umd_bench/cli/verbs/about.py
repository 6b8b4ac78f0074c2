"""The verbs about umd-bench itself: its version, and the schema of its files."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

app = typer.Typer()


def version_and_exit(wanted: bool) -> None:
    """If ``wanted``, print umd-bench's version and commit and the versions of Python and torch, and exit. Imports no torch."""
    if not wanted:
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
        typer.Option(
            "--version",
            is_eager=True,
            callback=version_and_exit,
            help="Print the versions of umd-bench, Python and torch, and exit.",
        ),
    ] = False,
) -> None:
    """Which corruption of an image auto-encoder serves both the representation and the samples?"""


@app.command()
def schema(
    kind: Annotated[str, typer.Argument(help="The kind of file: sweep or trial.")] = "sweep",
) -> None:
    """Print the JSON Schema of a sweep or trial file."""
    from umd_bench.config.sweep.resolve import json_schema

    sys.stdout.write(json_schema(kind))
