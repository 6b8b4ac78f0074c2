"""Verbs that measure what the pieces cost in time, on this machine."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from umd_bench.cli.bench.options import DeviceOption, JsonOption, RepeatsOption, ThreadsOption, here, show
from umd_bench.cli.console import console
from umd_bench.cli.options import DataOption, SetOption, SizeOption, TierOption, folder_of_data

app = typer.Typer()


@app.command("data")
def bench_data_verb(
    data: Annotated[str | None, typer.Option("--data", help="A packed data set (default: made-up ImageNet-64).")] = None,
    size: SizeOption = None,
    images: Annotated[int, typer.Option("--n", min=1, help="How many images to make up.")] = 20_000,
    batch: Annotated[int | None, typer.Option("--batch", min=2, help="Images a batch (default: 16; on a GPU 256).")] = None,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Measurements of each.")] = 5,
    threads: Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads (default: torch's own).")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
    data_root: DataOption = None,
) -> None:
    """Measure whether training waits for its data: the loader alone against the S/4 step that it feeds."""
    from rich.console import Console
    from rich.table import Table

    from umd_bench.bench.measurements.data import bench_data
    from umd_bench.config.documents.document import Document
    from umd_bench.config.documents.validation import validate
    from umd_bench.config.errors import FieldError, one_of
    from umd_bench.config.trial.data import DataConfig
    from umd_bench.engine.device import device_name

    if device not in ("auto", "cpu", "cuda"):
        raise FieldError("--device", device, one_of(("auto", "cpu", "cuda")))
    asked = validate(DataConfig, Document({"name": data, "size": size})) if data is not None else None
    with Console(stderr=True).status("starting") as status:
        found = bench_data(
            data=asked,
            data_root=folder_of_data(data_root),
            images=images,
            batch=batch,
            repeats=repeats,
            threads=threads,
            device=device,
            device_name=device_name(device),
            progress=status.update,
        )
    if as_json:
        sys.stdout.write(json.dumps(found.as_json(), indent=1) + "\n")
        return
    C, H, W = found.shape
    console.print(
        f"{found.data}: {found.images:,} images {C}x{H}x{W}, batch {found.batch}; {found.device} ({found.device_name}), "
        f"{found.threads} threads, torch {found.torch}",
        highlight=False,
    )
    table = Table("", "images/s (median)", "slowest", "fastest", "repeats", "batches a repeat")
    for name, rate in {**found.loaders, f"S/4 training step, {found.precision}": found.step}.items():
        numbers = (f"{value:,.1f}" for value in (rate.median, rate.slowest, rate.fastest))
        table.add_row(name, *numbers, str(rate.repeats), str(rate.calls))
    console.print(table)
    console.print(found.verdict, highlight=False)


@app.command("train")
def bench_train_verb(
    method: Annotated[str, typer.Option("--method", help="umd, mae, dit, maskdit or dit_scratch.")] = "umd",
    tier: TierOption = None,
    model: Annotated[str | None, typer.Option("--model", help="S/4, B/4, L/2 and so on (default: the tier's).")] = None,
    size: SizeOption = None,
    stage: Annotated[str, typer.Option("--stage", help="pretrain or finetune.")] = "pretrain",
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Images a step (default: the tier's).")] = None,
    precision: Annotated[list[str] | None, typer.Option("--precision", help="fp32 or bf16; may be repeated.")] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Time the compiled step too, and what compiling takes.")] = False,
    baseline: Annotated[bool, typer.Option("--baseline", help="Time the plain eager fp32 step in the same run.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Show where the time of a step goes.")] = False,
    set_: SetOption = None,
    repeats: RepeatsOption = 5,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure the training step: images a second, of the peak, memory; a tier's step, or a model's by its name."""
    from umd_bench.bench.measurements.train import bench_train, train_spec
    from umd_bench.bench.timing.peak import precisions_of
    from umd_bench.config.errors import UserError

    if tier is None and model is None:
        raise UserError("nothing is named to be measured: expected --tier, or --model with --size")
    asked = precisions_of(precision)
    where, machine = here(device, threads)
    spec = train_spec(method=method, tier=tier, model=model, size=size, stage=stage, batch=batch, device=where, sets=set_ or [])
    show(
        lambda progress: bench_train(
            spec,
            machine=machine,
            precisions=asked,
            compiled=compile_,
            baseline=baseline,
            profile=profile,
            repeats=repeats,
            device=where,
            progress=progress,
        ),
        as_json=as_json,
    )


@app.command("sample")
def bench_sample_verb(
    tier: Annotated[str, typer.Option("--tier", help="Scale: digits, fashion, emoji64 and so on, or a YAML file.")] = "digits",
    model: Annotated[str | None, typer.Option("--model", help="S/4, B/4 and so on (default: the tier's).")] = None,
    sampler: Annotated[list[str] | None, typer.Option("--sampler", help="May be repeated (default: every one).")] = None,
    steps: Annotated[list[int] | None, typer.Option("--steps", min=1, help="May be repeated (default: 10 and 20).")] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Samples at once (default: the tier's).")] = None,
    cfg_scale: Annotated[float | None, typer.Option("--cfg-scale", min=0, help="Guidance (default: the tier's).")] = None,
    precision: Annotated[str, typer.Option("--precision", help="fp32 or bf16; the plain loop is fp32.")] = "fp32",
    compile_: Annotated[bool, typer.Option("--compile", help="Time the first way compiled too.")] = False,
    baseline: Annotated[bool, typer.Option("--baseline", help="Time a plain loop of DDIM in the same run.")] = False,
    repeats: RepeatsOption = 5,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure sampling: images a second for each sampler and number of steps."""
    from umd_bench.bench.measurements.sample import bench_sample
    from umd_bench.bench.timing.peak import precisions_of

    asked = precisions_of([precision])[0]
    where, machine = here(device, threads)
    show(
        lambda progress: bench_sample(
            tier=tier,
            model=model,
            samplers=sampler or [],
            steps=steps or [10, 20],
            batch=batch,
            cfg_scale=cfg_scale,
            precision=asked,
            compiled=compile_,
            baseline=baseline,
            machine=machine,
            repeats=repeats,
            device=where,
            progress=progress,
        ),
        as_json=as_json,
    )


@app.command("fid")
def bench_fid_verb(
    width: Annotated[list[int] | None, typer.Option("--width", min=2, help="D; may be repeated (default: 256, 2048).")] = None,
    extractor: Annotated[list[str] | None, typer.Option("--extractor", help="Time its features too; may be repeated.")] = None,
    repeats: RepeatsOption = 3,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure the Fréchet distance against scipy's matrix square root, and extractors' images a second."""
    from umd_bench.bench.measurements.fid import WIDTHS, bench_fid

    where, machine = here(device, threads)
    widths, extractors = tuple(width or WIDTHS), tuple(extractor or ())
    show(
        lambda progress: bench_fid(
            machine=machine, widths=widths, extractors=extractors, repeats=repeats, device=where, progress=progress
        ),
        as_json=as_json,
    )


@app.command("probe")
def bench_probe_verb(
    width: Annotated[int, typer.Option("--width", min=2, help="Features of an image.")] = 384,
    images: Annotated[int, typer.Option("--n", min=1024, help="Training images.")] = 4000,
    repeats: RepeatsOption = 3,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the probes on the CPU against scikit-learn, timm's LARS and a plain loop."""
    from umd_bench.bench.measurements.probe import bench_probe

    where, machine = here("cpu", threads)
    show(
        lambda progress: bench_probe(
            machine=machine, width=width, images=images, repeats=repeats, device=where, progress=progress
        ),
        as_json=as_json,
    )
