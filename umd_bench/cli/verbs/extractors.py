"""``umd-bench extractor``: verbs on feature extractors."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umd_bench.cli.console import console, print_line
from umd_bench.cli.options import DataOption, SizeOption, folder_of_data
from umd_bench.config.errors import UserError

TABLE_WIDTH = 130  # on a terminal with fewer columns, each extractor is a line of text instead of a row
app = typer.Typer(help="Feature extractors: list, fetch, train.", no_args_is_help=True)


@app.command("list")
def extractor_list(data_root: DataOption = None) -> None:
    """List the feature extractors: the images they take, their features, and the hashes of their weights."""
    from rich.table import Table

    from umd_bench.evaluation.extractors.listing import list_extractors

    entries = list(list_extractors(folder_of_data(data_root)))
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
    name: Annotated[str, typer.Argument(help="A packed data set, or the name of its classifier: NAME or NAME_cnn.")],
    size: SizeOption = None,
    epochs: Annotated[
        int | None, typer.Option("--epochs", min=1, help="Passes over the training images (default: more for a smaller set).")
    ] = None,
    flip: Annotated[
        bool,
        typer.Option("--flip", help="Mirror images with probability 1/2; give it only if a mirrored image keeps its class."),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for the weights and their description (default: the one where every verb looks)."),
    ] = None,
    data_root: DataOption = None,
) -> None:
    """Train a small classifier of a packed data set's classes, for use as a feature extractor.

    Its weights are written below the data root, and every verb then knows it as NAME_cnn. To train a classifier again that
    comes with the package, give another folder with --out.
    """
    from rich.progress import Progress

    from umd_bench.evaluation.extractors.classifiers.training import TrainOptions, train_extractor

    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(name, total=None)
        trained = train_extractor(
            name,
            folder_of_data(data_root),
            TrainOptions(size, epochs, flip),
            out=out,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    described = trained.description
    shares = {"validation": described.validation_accuracy, "test": described.test_accuracy}
    accuracy = ", ".join(f"{share:.1%} on {split}" for split, share in shares.items() if share is not None)
    state = " is trained already" if trained.existed else ""
    print_line(f"{trained.name}{state}: accuracy {accuracy} (chance: {1 / described.recipe.classes:.1%})")
    print_line(f"SHA-256 {described.sha256[:12]}, {trained.weights}")
