"""What the verbs of `umd-bench bench` share: their options, and how a finding is shown."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from umd_bench.cli.console import console

if TYPE_CHECKING:
    import torch

    from umd_bench.bench.tables import Finding
    from umd_bench.bench.timing.machine import Machine

Progress = Callable[[str], None]
RepeatsOption = Annotated[int, typer.Option("--repeats", min=1, help="Measurements of each, in turn.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads (default: torch's own).")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]


def here(device: str, threads: int | None) -> tuple[torch.device, Machine]:
    """The device that is asked for, and the machine's facts as they are before anything is measured."""
    from umd_bench.bench.timing.machine import device_here, machine_facts
    from umd_bench.engine.device import device_name

    where = device_here(device)
    return where, machine_facts(where, threads, device_name(device))


def show(measured: Callable[[Progress], Finding], *, as_json: bool) -> None:
    """Measure, with a word on the terminal about what is going on, and print what was found."""
    from rich.console import Console
    from rich.table import Table

    with Console(stderr=True).status("starting") as status:
        finding = measured(status.update)
    if as_json:
        sys.stdout.write(json.dumps({**finding.as_json(), "warning": finding.machine.warning}, indent=1) + "\n")
        return
    console.print(finding.machine.line, highlight=False)
    if finding.machine.warning is not None:
        console.print(f"warning: {finding.machine.warning}", style="yellow", highlight=False)
    for table in finding.tables():
        shown = Table(*table.header, title=table.title, title_justify="left")
        for row in table.rows:
            shown.add_row(*row)
        console.print(shown)
    for remark in finding.remarks():
        console.print(remark, highlight=False)
