"""Verbs on data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umd_bench.cli.shared import (
    DataOption,
    SizeOption,
    console,
    folder_of_data,
)

app = typer.Typer(help="Data sets: list, pack, verify.", no_args_is_help=True)


@app.command("list")
def data_list(data_root: DataOption = None) -> None:
    """List the data sets and whether they are packed."""
    from umd_bench.data.pack import describe_sources

    for line in describe_sources(folder_of_data(data_root)):
        console.print(line, highlight=False, soft_wrap=True)


@app.command("pack")
def data_pack(
    name: Annotated[str, typer.Argument(help="A data set's name (see data list).")],
    folder: Annotated[Path | None, typer.Option("--folder", help="Where its original files are.")] = None,
    size: SizeOption = None,
    data_root: DataOption = None,
) -> None:
    """Read a data set's original files into memory-mapped arrays."""
    from umd_bench.data.pack import pack

    packed = pack(name, folder_of_data(data_root), folder, size=size)
    counts = ", ".join(f"{count} {split}" for split, count in packed.manifest.counts.items())
    console.print(f"{name}: {counts}, digest {packed.manifest.digest[:12]}", highlight=False)


@app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="A packed data set's name.")],
    size: SizeOption = None,
    data_root: DataOption = None,
) -> None:
    """Compare the packed files with the sums in their manifest."""
    from umd_bench.data.pack import pack, verify

    packed = pack(name, folder_of_data(data_root), size=size)
    verify(packed)
    console.print(f"{name}: every file agrees with its sum (digest {packed.manifest.digest[:12]})", highlight=False)
