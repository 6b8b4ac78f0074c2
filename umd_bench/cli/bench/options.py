"""The options that the verbs of `umd-bench bench` share, and the function that prints a result."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from umd_bench.cli.console import console, print_warning

if TYPE_CHECKING:
    import torch

    from umd_bench.bench.tables import BenchResult
    from umd_bench.bench.timing.machine import Machine

Progress = Callable[[str], None]
RepeatsOption = Annotated[
    int,
    typer.Option("--repeats", min=1, help="How often each variant is measured; the variants take turns."),
]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads (default: torch's own choice).")]
DeviceOption = Annotated[str, typer.Option("--device", help="Where to compute: auto, cpu or cuda.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the tables.")]


def device_and_machine(device: str, threads: int | None) -> tuple[torch.device, Machine]:
    """The device that ``--device`` names, and a description of this machine before anything is measured."""
    from umd_bench.bench.timing.machine import bench_device, machine_facts
    from umd_bench.engine.device import device_name

    torch_device = bench_device(device)
    return torch_device, machine_facts(torch_device, threads, device_name(device))


def measure_and_print(measure: Callable[[Progress], BenchResult], *, as_json: bool) -> None:
    """Measure while a status line names the current step, and print the result."""
    from rich.console import Console
    from rich.table import Table

    with Console(stderr=True).status("starting") as status:
        result = measure(status.update)
    if as_json:
        sys.stdout.write(json.dumps({**result.as_json(), "warning": result.machine.warning}, indent=1) + "\n")
        return
    console.print(result.machine.line, highlight=False)
    if result.machine.warning is not None:
        print_warning(result.machine.warning)
    for table in result.tables():
        shown = Table(*table.header, title=table.title, title_justify="left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for remark in result.remarks():
        console.print(remark, highlight=False)
