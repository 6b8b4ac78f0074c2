"""Verbs on feature extractors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umd_bench.cli.shared import (
    DataOption,
    console,
    folder_of_data,
)
from umd_bench.config.errors import UserError

TABLE_WIDTH = 130  # characters a line below which the extractors' table is told in sentences
app = typer.Typer(help="Feature extractors: list, fetch, train.", no_args_is_help=True)


@app.command("list")
def extractor_list() -> None:
    """List the feature extractors: what they read and give, and the hashes of their weights."""
    from rich.table import Table

    from umd_bench.evaluation.extractors.catalogue import catalogue

    entries = list(catalogue())
    table = Table("name", "features", "takes", "data", "resize", "weights", "licence", box=None, pad_edge=False)
    for column in table.columns:
        column.no_wrap = column.header in ("name", "features", "takes", "weights", "licence")
    for entry in entries:
        weights = "faulty" if entry.faulty else "missing" if entry.weights is None else entry.weights[:12]
        row = (entry.name, entry.dim, entry.takes, entry.data, entry.resize, weights, entry.licence)
        table.add_row(*row)
        if console.width < TABLE_WIDTH:
            told = "; ".join(f"{column.header} {cell}" for column, cell in zip(table.columns[1:], row[1:], strict=True) if cell)
            console.print(f"{entry.name}\n  {told}", highlight=False, markup=False, soft_wrap=True)
    if console.width >= TABLE_WIDTH:
        console.print(table, highlight=False, markup=False)
    for entry in entries:
        if entry.remark is not None and not entry.faulty:
            console.print(f"{entry.name}: {entry.remark}", highlight=False, soft_wrap=True, markup=False)
    faults = [str(entry.remark) for entry in entries if entry.faulty]
    if faults:
        raise UserError("; ".join(faults))


@app.command("fetch")
def extractor_fetch(
    name: Annotated[str, typer.Argument(help="inception-v3-compat.")],
    address: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="A mirror of the file; its hash has to be the published one.")
    ] = None,
) -> None:
    """Download an extractor's published weights. Nothing else ever downloads any."""
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
    console.print(f"{'fetched' if new else 'there already:'} {published.target}", highlight=False, soft_wrap=True)


@app.command("train")
def extractor_train(
    name: Annotated[str, typer.Argument(help="digits_cnn, fashion_cnn or emoji_cnn.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the weights and their description.")],
    data_root: DataOption = None,
) -> None:
    """Train a small classifier whose features a Fréchet distance can use. The committed weights were made by this command."""
    from umd_bench.evaluation.extractors.classifier import train_extractor

    train_extractor(name, out, folder_of_data(data_root))
    console.print(f"wrote {out / name}.safetensors and its description", highlight=False)
