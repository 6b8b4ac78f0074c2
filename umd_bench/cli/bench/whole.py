"""Verbs that measure umd-bench as a whole: how fast commands start, how costs grow, and all benchmarks at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umd_bench.cli.bench.options import (
    DeviceOption,
    JsonOption,
    RepeatsOption,
    ThreadsOption,
    device_and_machine,
    measure_and_print,
)
from umd_bench.cli.console import console, print_warning
from umd_bench.cli.options import DataOption, folder_of_data

if TYPE_CHECKING:
    from umd_bench.bench.tables import BenchResult

app = typer.Typer()
PAGE = Path("docs/performance.md")


@app.command("sweep")
def bench_sweep_verb(
    stages: Annotated[
        int,
        typer.Option("--stages", min=2, help="Number of empty stages to run; they show the scheduler's cost per stage."),
    ] = 500,
    executor: Annotated[
        str, typer.Option("--on", help="Where the empty stages run: ray, inline, slurm or submitit-local.")
    ] = "ray",
    repeats: RepeatsOption = 5,
    data_root: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how long commands and sweeps take to start, and how much time the scheduler adds to each stage."""
    from umd_bench.bench.suite import measure_startup
    from umd_bench.orchestration.executors.registry import check_name

    check_name(executor)
    _, machine = device_and_machine("cpu", None)
    measure_and_print(
        lambda progress: measure_startup(stages, executor, repeats, folder_of_data(data_root), machine, progress),
        as_json=as_json,
    )


@app.command("scale")
def bench_scale_verb(
    largest: Annotated[int, typer.Option("--largest", min=10, help="Largest number of trials or stages to measure.")] = 1000,
    repeats: RepeatsOption = 3,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure how costs grow with batch, width, tokens, trials and the size of the results folder."""
    from umd_bench.bench.suite import measure_scale

    torch_device, machine = device_and_machine(device, threads)
    measure_and_print(lambda progress: measure_scale(largest, repeats, torch_device, machine, progress), as_json=as_json)


@app.command("all")
def bench_all_verb(
    page: Annotated[Path, typer.Option("--page", help="The page whose generated part is replaced.")] = PAGE,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Run every benchmark (10 to 15 minutes on two cores), and write their tables into docs/performance.md."""
    from rich.console import Console

    from umd_bench.bench.page import check_page, results_markdown, write_page
    from umd_bench.bench.suite import every_benchmark

    check_page(page)
    torch_device, machine = device_and_machine(device, threads)
    if machine.warning is not None:
        print_warning(machine.warning)
    jobs = every_benchmark(torch_device, machine, folder_of_data(None))
    results: list[tuple[str, BenchResult]] = []
    started = time.perf_counter()
    with Console(stderr=True).status("starting") as status:
        for place, (command, job) in enumerate(jobs, start=1):
            begun = time.perf_counter()
            heading = f"{place} of {len(jobs)}: {command}"
            console.print(heading, highlight=False)
            results.append((command, job(lambda step, heading=heading: status.update(f"{heading}: {step}"))))  # type: ignore[misc]
            took = time.perf_counter() - started
            # After each benchmark, so that an interrupted run keeps its tables.
            write_page(page, results_markdown(results, took, total=len(jobs)))
            console.print(f"  {time.perf_counter() - begun:.0f} s, {took / 60:.1f} minutes in all", highlight=False)
    console.print(f"wrote the tables of {len(results)} benchmarks into {page}", highlight=False)
