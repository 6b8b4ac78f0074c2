"""``umd-bench bench``: verbs that measure how fast each part of umd-bench is on this machine."""

from __future__ import annotations

import typer

from umd_bench.cli.bench import pieces, whole

app = typer.Typer(help="Measure on this machine how fast the parts of umd-bench are.", no_args_is_help=True)
app.add_typer(pieces.app)
app.add_typer(whole.app)


@app.callback()
def bench() -> None:
    """Measure on this machine how fast the parts of umd-bench are."""
