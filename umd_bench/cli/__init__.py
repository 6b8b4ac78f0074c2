"""The command line: one function per verb, no logic of its own.

Exit codes: 0 done, 1 a stage failed, 2 a mistake in what was asked for, 130 interrupted.
Heavy libraries are imported inside the verbs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from umd_bench.cli import bench_whole, data, extractors, following, machine, runs, sweeps, tracking
from umd_bench.config.errors import UserError

app = typer.Typer(
    name="umd-bench",
    help="Which corruption of an image auto-encoder serves both the representation and the samples?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for verbs in (sweeps.app, following.app, runs.app, machine.app):
    app.add_typer(verbs)
app.callback()(machine.options)
app.add_typer(data.app, name="data")
app.add_typer(tracking.app, name="mlflow")
app.add_typer(bench_whole.app, name="bench")
app.add_typer(extractors.app, name="extractor")


def main() -> None:
    """The console script: a :class:`UserError` is one line and exit code 2."""
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(f"umd-bench: {error}", style="red", highlight=False, soft_wrap=True, markup=False)
        sys.exit(2)
