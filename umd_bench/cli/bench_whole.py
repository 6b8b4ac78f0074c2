"""Verbs that measure what is beyond one piece: how commands begin, how costs grow, and everything at once for the notebook."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umd_bench.cli.bench import app
from umd_bench.cli.measuring import DeviceOption, JsonOption, Progress, RepeatsOption, ThreadsOption, here, show
from umd_bench.cli.shared import console

if TYPE_CHECKING:
    import torch

    from umd_bench.bench.machine import Machine
    from umd_bench.bench.scale import Growth, ScaleFinding
    from umd_bench.bench.tables import Finding

__all__ = ["app"]

PAGE = Path("docs/performance.md")


@app.command("sweep")
def bench_sweep_verb(repeats: RepeatsOption = 5, as_json: JsonOption = False) -> None:
    """Measure how long a command takes to begin: its help, and the imports of the engine and of a worker."""
    from umd_bench.bench.startup import bench_startup

    _, machine = here("cpu", None)
    show(lambda progress: bench_startup(machine=machine, repeats=repeats, notes={}, progress=progress), as_json=as_json)


@app.command("scale")
def bench_scale_verb(
    largest: Annotated[int, typer.Option("--largest", min=10, help="Trials of the largest sweep.")] = 1000,
    repeats: RepeatsOption = 3,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure how costs grow with the batch, the width, the tokens, the trials and the results folder."""
    where, machine = here(device, threads)
    show(lambda progress: _scale(largest, repeats, where, machine, progress), as_json=as_json)


@app.command("all")
def bench_all_verb(
    page: Annotated[Path, typer.Option("--page", help="The notebook whose generated part is replaced.")] = PAGE,
    threads: ThreadsOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Run every benchmark in about ten minutes on two cores, and write their tables into docs/performance.md."""
    from rich.console import Console

    from umd_bench.bench.page import check_page, generated, write_page

    check_page(page)
    where, machine = here(device, threads)
    started = time.perf_counter()
    with Console(stderr=True).status("starting") as status:
        findings = _everything(where, machine, status.update)
    write_page(page, generated(findings, time.perf_counter() - started))
    if machine.warning is not None:
        console.print(f"warning: {machine.warning}", style="yellow", highlight=False)
    console.print(f"wrote the tables of {len(findings)} benchmarks into {page}", highlight=False)


def _everything(where: torch.device, machine: Machine, progress: Progress) -> list[tuple[str, Finding]]:
    """Each benchmark with the command that repeats it alone."""
    from umd_bench.bench.data import bench_data
    from umd_bench.bench.fid import bench_fid
    from umd_bench.bench.probe import bench_probe
    from umd_bench.bench.sample import bench_sample
    from umd_bench.bench.startup import bench_startup
    from umd_bench.bench.train import bench_train, train_spec
    from umd_bench.cli.shared import folder_of_data

    found: list[tuple[str, Finding]] = []
    for tier, model, batch, repeats in (("digits", None, None, 5), ("fashion", None, 64, 3), ("imagenet64", "S/4", 16, 3)):
        spec = train_spec(method="umd", tier=tier, model=model, size=None, stage="pretrain", batch=batch, device=where)
        options = "".join(
            f" --{name} {value}" for name, value in (("tier", tier), ("model", model), ("batch", batch)) if value is not None
        )
        finding = bench_train(
            spec, machine=machine, baseline=True, profile=True, repeats=repeats, device=where, progress=progress
        )
        found.append((f"umd-bench bench train{options} --baseline --profile", finding))
    loader = bench_data(
        data=None, data_root=folder_of_data(None), images=2000, batch=None, repeats=3, threads=None, device=where.type
    )
    found.append(("umd-bench bench data --n 2000", loader.with_machine(machine)))
    sampling = bench_sample(
        tier="digits",
        model=None,
        samplers=[],
        steps=[5],
        batch=100,
        cfg_scale=None,
        baseline=True,
        machine=machine,
        repeats=5,
        device=where,
        progress=progress,
    )
    found.append(("umd-bench bench sample --steps 5 --batch 100 --baseline", sampling))
    found.append(("umd-bench bench fid", bench_fid(machine=machine, repeats=1, device=where, progress=progress)))
    found.append(("umd-bench bench probe", bench_probe(machine=machine, repeats=3, device=where, progress=progress)))
    found.append(("umd-bench bench sweep", bench_startup(machine=machine, repeats=5, notes={}, progress=progress)))
    found.append(("umd-bench bench scale", _scale(1000, 1, where, machine, progress)))
    return found


def _scale(largest: int, repeats: int, where: torch.device, machine: Machine, progress: Progress) -> ScaleFinding:
    from umd_bench.bench.scale import ScaleFinding, training_growths

    growths = training_growths(repeats=max(3, repeats), device=where, progress=progress)
    with tempfile.TemporaryDirectory(prefix="umd-bench-scale-") as folder:
        growths += _folder_growths(Path(folder), largest, repeats, progress)
    return ScaleFinding(machine, tuple(growths))


def _folder_growths(folder: Path, largest: int, repeats: int, progress: Progress) -> list[Growth]:
    from umd_bench.bench.folders import NAME, made_up_results, made_up_sweep, record_of
    from umd_bench.bench.scale import counted_growth
    from umd_bench.config.resolve import load_sweep
    from umd_bench.orchestration.plan import build_graph, trial_records
    from umd_bench.orchestration.status import status_table
    from umd_bench.reporting.frames import long_table
    from umd_bench.store import write_sweep

    sizes = tuple(size for size in (1, 10, 100, 1000, 10_000) if size <= largest)
    files, roots = {}, {}
    for size in sizes:
        progress(f"a results folder of {size:,} trials")
        roots[size] = folder / f"results-{size}"
        sweep = made_up_results(roots[size], size)
        write_sweep(roots[size], record_of(sweep, trial_records(sweep.trials)))
        files[size] = made_up_sweep(roots[size], size)
    works = {
        "read and expand a sweep": lambda size: lambda: load_sweep(files[size]),
        "plan a finished sweep": lambda size: (lambda sweep: lambda: build_graph(roots[size], sweep.trials))(
            load_sweep(files[size])
        ),
        "status": lambda size: lambda: status_table(roots[size], NAME),
        "table": lambda size: lambda: long_table(roots[size], NAME),
    }
    return [
        counted_growth(what, "the trials", sizes, prepare, repeats=repeats, progress=progress)
        for what, prepare in works.items()
    ]
