"""``umd-bench extractor``: verbs on feature extractors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umd_bench.cli.console import console, print_line
from umd_bench.cli.options import DataOption, folder_of_data
from umd_bench.config.errors import UserError

TABLE_WIDTH = 130  # on a terminal with fewer columns, each extractor is a line of text instead of a row
app = typer.Typer(help="Feature extractors: list, fetch, train.", no_args_is_help=True)


@app.command("list")
def extractor_list() -> None:
    """List the feature extractors: the images they take, their features, and the hashes of their weights."""
    from rich.table import Table

    from umd_bench.evaluation.extractors.listing import list_extractors

    entries = list(list_extractors())
    table = Table("name", "features", "takes", "data", "resize", "weights", "licence", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = column.header in ("name", "features", "takes", "weights", "licence")
    for entry in entries:
        weights = "faulty" if entry.faulty else "missing" if entry.weights is None else entry.weights[:12]
        row = (entry.name, entry.dim, entry.takes, entry.data, entry.resize, weights, entry.licence)
        table.add_row(*row)
        if console.width < TABLE_WIDTH:
            cells = zip(table.columns[1:], row[1:], strict=True)
            print_line(f"{entry.name}\n  {'; '.join(f'{column.header} {cell}' for column, cell in cells if cell)}")
    if console.width >= TABLE_WIDTH:
        console.print(table, highlight=False, markup=False)
    for entry in entries:
        if entry.remark is not None and not entry.faulty:
            print_line(f"{entry.name}: {entry.remark}")
    faults = [str(entry.remark) for entry in entries if entry.faulty]
    if faults:
        raise UserError("; ".join(faults))


@app.command("fetch")
def extractor_fetch(
    name: Annotated[str, typer.Argument(help="The extractor: inception-v3-compat.")],
    address: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="Download from this mirror; the file must have the published hash."),
    ] = None,
) -> None:
    """Download an extractor's published weights. No other verb downloads weights."""
    from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

    from umd_bench.evaluation.extractors.registry import published_weights
    from umd_bench.evaluation.extractors.weight_files import fetch

    published = published_weights(name)
    with Progress(*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn(), console=console) as progress:
        task = progress.add_task(name)
        new = fetch(
            address or published.address,
            published.target,
            published.sha256,
            lambda done, total: progress.update(task, completed=done, total=total or None),
        )
    print_line(f"{'fetched' if new else 'there already:'} {published.target}")


@app.command("train")
def extractor_train(
    name: Annotated[str, typer.Argument(help="The extractor: digits_cnn, fashion_cnn or emoji_cnn.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the weights and their description.")],
    data_root: DataOption = None,
) -> None:
    """Train a small classifier for use as a feature extractor. The weights in the package were made by this command."""
    from umd_bench.evaluation.extractors.classifier import train_extractor

    train_extractor(name, out, folder_of_data(data_root))
    print_line(f"wrote {out / name}.safetensors and its description")
