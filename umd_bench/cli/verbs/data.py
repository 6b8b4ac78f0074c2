"""``umd-bench data``: verbs on data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umd_bench.cli.console import console, print_line
from umd_bench.cli.options import DataOption, SizeOption, folder_of_data

if TYPE_CHECKING:
    from umd_bench.data.listing import Listing
    from umd_bench.data.packs.pack import Pack

app = typer.Typer(help="Data sets: list, pack, verify.", no_args_is_help=True)


@app.command("list")
def data_list(data_root: DataOption = None) -> None:
    """List the data sets, and the packs of each."""
    from rich.table import Table

    from umd_bench.data.listing import list_data

    root = folder_of_data(data_root)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (("data set", "left"), ("images", "right"), ("classes", "right"), ("size", "right")):
        table.add_column(column, justify=justify, no_wrap=column == "data set")  # type: ignore[arg-type]
    for column in ("packed", "on disk", "licence"):
        table.add_column(column, overflow="fold")
    for listing in list_data(root):
        table.add_row(*_row(listing))
    console.print(table, highlight=False)
    print_line(f"packs lie in {root}")


@app.command("pack")
def data_pack(
    name: Annotated[str, typer.Argument(help="A data set's name (see `data list`), or a new name for a data set of your own.")],
    root: Annotated[Path | None, typer.Option("--root", "--folder", help="Folder of the original files.")] = None,
    size: SizeOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "--data-root", envvar="UMD_BENCH_DATA", help="Folder of packed data sets (default: in the user's cache)."
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes that decode images (default: one per core).")
    ] = None,
    resize: Annotated[
        str,
        typer.Option(
            "--resize",
            help="How images are scaled: antialiased, adm (as ADM and DiT do) or aliased (as the official code does).",
        ),
    ] = "antialiased",
    on_corrupt: Annotated[
        str, typer.Option("--on-corrupt", help="If an image cannot be read: refuse (stop) or skip (leave it out).")
    ] = "refuse",
    splits: Annotated[str | None, typer.Option("--splits", metavar="A,B", help="Pack these splits only.")] = None,
    test_share: Annotated[
        float | None,
        typer.Option(
            "--test-share", help="Share of each class that becomes the test split, if the files have no splits (default: 0.2)."
        ),
    ] = None,
    image_column: Annotated[
        str | None, typer.Option("--image-column", help="For a Hugging Face data set: the column of images.")
    ] = None,
    label_column: Annotated[
        str | None, typer.Option("--label-column", help="For a Hugging Face data set: the column of labels.")
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", help="For a data set of your own: its licence, recorded in the manifest.")
    ] = None,
    vae: Annotated[
        str | None,
        typer.Option("--vae", help="Also encode latents, with this VAE: its folder, or its name in Hugging Face's cache."),
    ] = None,
    vae_name: Annotated[
        str | None, typer.Option("--vae-name", help="Name that the pack records for the VAE (default: the VAE's own name).")
    ] = None,
    vae_precision: Annotated[
        str, typer.Option("--vae-precision", help="Precision of the VAE's encoder: fp32 or bf16.")
    ] = "fp32",
    device: Annotated[str, typer.Option("--device", help="Device of the VAE's encoder: auto, cpu or cuda.")] = "auto",
) -> None:
    """Pack a data set's original files into memory-mapped arrays. The same command continues an interrupted packing.

    With --vae the packed images are then encoded into latents, which become a second pack.
    """
    from umd_bench.cli.packing_progress import PackingProgress
    from umd_bench.data.open_data import open_pack
    from umd_bench.data.packing.images import PackOptions, pack_data

    options = PackOptions(
        size=size,
        resize=resize,
        on_corrupt=on_corrupt,
        workers=workers,
        splits=tuple(splits.split(",")) if splits is not None else None,
        test_share=test_share,
        image_column=image_column,
        label_column=label_column,
        licence=licence,
    )
    request = None
    if vae is not None:
        from umd_bench.data.packing.latents import LatentRequest, pack_latents

        request = LatentRequest.checked(
            name, folder_of_data(out), vae, vae_name=vae_name, size=size, precision=vae_precision, device=device
        )
    with PackingProgress(name) as shown:
        if request is not None and root is None:  # images that are packed already need no folder
            packed = open_pack(name, folder_of_data(out), size=size, progress=shown.update)
        else:
            packed = pack_data(name, root, folder_of_data(out), options, progress=shown.update, listed=shown.line)
    _print_pack(packed)
    if request is not None:
        with PackingProgress(f"latents of {name}") as shown:
            latents = pack_latents(request, packed, progress=shown.update)
        _print_pack(latents)


@app.command("verify")
def data_verify(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME|FOLDER", help="A data set's name or a pack's folder (default: every pack in the data root)."
        ),
    ] = None,
    size: SizeOption = None,
    data_root: DataOption = None,
) -> None:
    """Compare packed files with the checksums in their manifests."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from umd_bench.data.listing import bytes_of, find_packs
    from umd_bench.data.packs.pack import verify

    packs = find_packs(which, folder_of_data(data_root), size)
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        for packed in packs:
            task = bar.add_task(packed.path.name, total=bytes_of(packed))
            verify(packed, progress=lambda done, task=task: bar.advance(task, done))  # type: ignore[misc]
            bar.remove_task(task)
            agrees = f"{packed.path}: every file agrees with its checksum (digest {packed.manifest.digest[:12]})"
            print_line(agrees, on=bar.console)


def _row(listing: Listing) -> tuple[str, ...]:
    from umd_bench.data.listing import bytes_of

    counts = [f"{count:,} {split}" for split, count in listing.images.items()]
    images = "\n".join([*counts, *filter(None, [listing.division])]) or "-"
    size = str(listing.size) if listing.size is not None else "any" if not listing.own else ""
    unused = {packed.path: " (earlier version)" for packed in listing.packs if packed.manifest.version != listing.version}
    places = "\n".join(f"{packed.path.name}{unused.get(packed.path, '')}" for packed in listing.packs) or "-"
    disk = "\n".join(f"{bytes_of(packed) / 2**20:,.1f} MiB" for packed in listing.packs)
    return listing.name, images, f"{listing.classes:,}", size, places, disk, listing.licence


def _print_pack(packed: Pack) -> None:
    from umd_bench.data.packs.manifest import SKIPPED_FILE

    manifest = packed.manifest
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    named = f"{manifest.name} (vae: {manifest.vae.name})" if manifest.vae is not None else manifest.name
    lines = [f"{named}: {counts}, digest {manifest.digest[:12]}, in {packed.path}"]
    if "skipped" in manifest.notes:
        lines.append(manifest.notes["skipped"].replace(SKIPPED_FILE, str(packed.path / SKIPPED_FILE)))
    for line in lines:
        print_line(line)
