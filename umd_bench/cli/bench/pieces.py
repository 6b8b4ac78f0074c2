"""Verbs that measure one part each: loading data, training steps, sampling, Fréchet distances, probes."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from umd_bench.cli.bench.options import (
    DeviceOption,
    JsonOption,
    RepeatsOption,
    ThreadsOption,
    device_and_machine,
    measure_and_print,
)
from umd_bench.cli.console import console
from umd_bench.cli.options import DataOption, SetOption, SizeOption, TierOption, folder_of_data

app = typer.Typer()


@app.command("data")
def bench_data_verb(
    data: Annotated[
        str | None,
        typer.Option("--data", help="A packed data set (default: random images of ImageNet-64's shape)."),
    ] = None,
    size: SizeOption = None,
    images: Annotated[int, typer.Option("--n", min=1, help="Number of random images to make if --data is not given.")] = 20_000,
    batch: Annotated[int | None, typer.Option("--batch", min=2, help="Images per batch (default: 16; on a GPU 256).")] = None,
    repeats: RepeatsOption = 5,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    data_root: DataOption = None,
) -> None:
    """Measure whether training has to wait for its data: compare the speeds of the loader and of an S/4 training step."""
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
    config = validate(DataConfig, Document({"name": data, "size": size})) if data is not None else None
    with Console(stderr=True).status("starting") as status:
        finding = bench_data(
            data=config,
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
        sys.stdout.write(json.dumps(finding.as_json(), indent=1) + "\n")
        return
    C, H, W = finding.shape
    data_facts = f"{finding.data}: {finding.images:,} images {C}x{H}x{W}, batch {finding.batch}"
    machine_facts = f"{finding.device} ({finding.device_name}), {finding.threads} threads, torch {finding.torch}"
    console.print(f"{data_facts}; {machine_facts}", highlight=False)
    table = Table("", "images/s (median)", "slowest", "fastest", "repeats", "batches per repeat")
    for name, rate in {**finding.loaders, f"S/4 training step, {finding.precision}": finding.step}.items():
        numbers = (f"{value:,.1f}" for value in (rate.median, rate.slowest, rate.fastest))
        table.add_row(name, *numbers, str(rate.repeats), str(rate.calls))
    console.print(table)
    console.print(finding.verdict, highlight=False)


@app.command("train")
def bench_train_verb(
    method: Annotated[str, typer.Option("--method", help="The method: umd, mae, dit, maskdit or dit_scratch.")] = "umd",
    tier: TierOption = None,
    model: Annotated[str | None, typer.Option("--model", help="The model: S/4, B/4, L/2, ... (default: the tier's).")] = None,
    size: SizeOption = None,
    stage: Annotated[str, typer.Option("--stage", help="The stage: pretrain or finetune.")] = "pretrain",
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Images per step (default: the tier's).")] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", help="fp32 or bf16; may be repeated (default: both)."),
    ] = None,
    compile_: Annotated[bool, typer.Option("--compile", help="Time the compiled step too, and the compilation.")] = False,
    baseline: Annotated[bool, typer.Option("--baseline", help="Time a plain eager fp32 step too, for comparison.")] = False,
    profile: Annotated[bool, typer.Option("--profile", help="Show how the time of a step divides among operations.")] = False,
    set_: SetOption = None,
    repeats: RepeatsOption = 5,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure the training step of a tier or of a named model: images per second, share of the peak FLOP/s, memory."""
    from umd_bench.bench.measurements.train import bench_train, train_spec
    from umd_bench.bench.timing.matmul_peak import precisions_of
    from umd_bench.config.errors import UserError

    if tier is None and model is None:
        raise UserError("there is nothing to measure: expected --tier, or --model with --size")
    precisions = precisions_of(precision)
    torch_device, machine = device_and_machine(device, threads)
    spec = train_spec(
        method=method, tier=tier, model=model, size=size, stage=stage, batch=batch, device=torch_device, sets=set_ or []
    )
    measure_and_print(
        lambda progress: bench_train(
            spec,
            machine=machine,
            precisions=precisions,
            compiled=compile_,
            baseline=baseline,
            profile=profile,
            repeats=repeats,
            device=torch_device,
            progress=progress,
        ),
        as_json=as_json,
    )


@app.command("sample")
def bench_sample_verb(
    tier: Annotated[
        str,
        typer.Option("--tier", help="Scale of the model: digits, fashion, emoji64, ..., or a YAML file."),
    ] = "digits",
    model: Annotated[str | None, typer.Option("--model", help="The model: S/4, B/4, ... (default: the tier's).")] = None,
    sampler: Annotated[
        list[str] | None,
        typer.Option("--sampler", help="A sampler; may be repeated (default: every sampler)."),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option("--steps", min=1, help="Sampler steps; may be repeated (default: 10 and 20)."),
    ] = None,
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Images per batch (default: the tier's).")] = None,
    cfg_scale: Annotated[
        float | None,
        typer.Option("--cfg-scale", min=0, help="Scale of classifier-free guidance (default: the tier's)."),
    ] = None,
    precision: Annotated[
        str,
        typer.Option("--precision", help="fp32 or bf16; the loop of --baseline is always fp32."),
    ] = "fp32",
    compile_: Annotated[bool, typer.Option("--compile", help="Time the first sampler in compiled form too.")] = False,
    baseline: Annotated[bool, typer.Option("--baseline", help="Time a plain DDIM loop too, for comparison.")] = False,
    repeats: RepeatsOption = 5,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure sampling: images per second for each sampler and number of steps."""
    from umd_bench.bench.measurements.sample import bench_sample
    from umd_bench.bench.timing.matmul_peak import precisions_of

    (chosen,) = precisions_of([precision])
    torch_device, machine = device_and_machine(device, threads)
    measure_and_print(
        lambda progress: bench_sample(
            tier=tier,
            model=model,
            samplers=sampler or [],
            steps=steps or [10, 20],
            batch=batch,
            cfg_scale=cfg_scale,
            precision=chosen,
            compiled=compile_,
            baseline=baseline,
            machine=machine,
            repeats=repeats,
            device=torch_device,
            progress=progress,
        ),
        as_json=as_json,
    )


@app.command("fid")
def bench_fid_verb(
    width: Annotated[
        list[int] | None,
        typer.Option("--width", min=2, help="Features per image; may be repeated (default: 256 and 2048)."),
    ] = None,
    extractor: Annotated[
        list[str] | None,
        typer.Option("--extractor", help="Time this feature extractor too; may be repeated."),
    ] = None,
    repeats: RepeatsOption = 3,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure how fast the Fréchet distance is, compared with scipy's matrix square root, and how fast extractors are."""
    from umd_bench.bench.measurements.fid import WIDTHS, bench_fid

    torch_device, machine = device_and_machine(device, threads)
    widths, extractors = tuple(width or WIDTHS), tuple(extractor or ())
    measure_and_print(
        lambda progress: bench_fid(
            machine=machine, widths=widths, extractors=extractors, repeats=repeats, device=torch_device, progress=progress
        ),
        as_json=as_json,
    )


@app.command("probe")
def bench_probe_verb(
    width: Annotated[int, typer.Option("--width", min=2, help="Features per image.")] = 384,
    images: Annotated[int, typer.Option("--n", min=1024, help="Training images.")] = 4000,
    repeats: RepeatsOption = 3,
    threads: ThreadsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the probes on the CPU against scikit-learn, timm's LARS optimiser and a plain loop."""
    from umd_bench.bench.measurements.probe import bench_probe

    torch_device, machine = device_and_machine("cpu", threads)
    measure_and_print(
        lambda progress: bench_probe(
            machine=machine, width=width, images=images, repeats=repeats, device=torch_device, progress=progress
        ),
        as_json=as_json,
    )
