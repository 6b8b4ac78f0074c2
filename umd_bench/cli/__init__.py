"""The command line: it reads options, calls the packages below and prints what they return; it decides nothing about results.

``verbs/`` has one function per verb, and ``bench/`` has the verbs of ``umd-bench bench``. Both use ``options``; verbs that run
a sweep or a trial also use ``run_sweep``.

Exit codes: 0 done; 1 a stage failed or is missing, or a check of ``doctor`` failed; 2 a mistake in the command or a file;
130 interrupted. Heavy libraries are imported inside the verbs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys

import typer
from rich.console import Console

from umd_bench.cli import bench
from umd_bench.cli.verbs import about, data, doctor, extractors, monitor, runs, sweeps, tiers, tracking
from umd_bench.config.errors import UserError

app = typer.Typer(
    name="umd-bench",
    help="Which corruption of an image auto-encoder serves both the representation and the samples?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for verbs in (sweeps.app, monitor.app, runs.app, about.app, doctor.app):
    app.add_typer(verbs)
app.callback()(about.options)
app.add_typer(data.app, name="data")
app.add_typer(tracking.app, name="mlflow")
app.add_typer(bench.app, name="bench")
app.add_typer(extractors.app, name="extractor")
app.add_typer(tiers.app, name="tier")


def main() -> None:
    """The console script. It prints a :class:`UserError` as one line, and exits with code 2."""
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(f"umd-bench: {error}", style="red", highlight=False, soft_wrap=True, markup=False)
        sys.exit(2)
