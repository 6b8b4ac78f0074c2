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
    vae: Annotated[
        str | None, typer.Option("--vae", help="Pack latents: a VAE's folder, or its name in Hugging Face's cache.")
    ] = None,
    vae_name: Annotated[
        str | None, typer.Option("--vae-name", help="What the latents are called (default: as the VAE).")
    ] = None,
    precision: Annotated[str, typer.Option("--vae-precision", help="Of the encoder: fp32 or bf16.")] = "fp32",
    device: Annotated[str, typer.Option("--device", help="Of the encoder: auto, cpu or cuda.")] = "auto",
) -> None:
    """Read a data set's original files into memory-mapped arrays; with --vae, encode these into latents."""
    from umd_bench.data.pack import pack

    if vae is not None:
        from umd_bench.data.latent_pack import pack_latents

        packed = pack_latents(
            name,
            folder_of_data(data_root),
            vae,
            vae_name=vae_name,
            size=size,
            folder=folder,
            precision=precision,
            device=device,
        )
    else:
        packed = pack(name, folder_of_data(data_root), folder, size=size)
    counts = ", ".join(f"{count} {split}" for split, count in packed.manifest.counts.items())
    console.print(f"{name}: {counts}, digest {packed.manifest.digest[:12]}", highlight=False)


@app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="A packed data set's name.")],
    size: SizeOption = None,
    vae_name: Annotated[str | None, typer.Option("--vae-name", help="Its latents of that name instead of its images.")] = None,
    data_root: DataOption = None,
) -> None:
    """Compare the packed files with the sums in their manifest."""
    from umd_bench.config.data import DataConfig
    from umd_bench.config.documents import Document
    from umd_bench.config.validation import validate
    from umd_bench.data.pack import open_data, verify

    data = validate(DataConfig, Document({"name": name, "size": size, "vae": vae_name}))
    packed = open_data(data, folder_of_data(data_root))
    verify(packed)
    console.print(f"{name}: every file agrees with its sum (digest {packed.manifest.digest[:12]})", highlight=False)
