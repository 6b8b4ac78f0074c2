"""Verbs that measure what is beyond one piece: how commands begin, how costs grow, and everything at once for the notebook."""

from __future__ import annotations

import io
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from umd_bench.cli.bench.options import DeviceOption, JsonOption, Progress, RepeatsOption, ThreadsOption, here, show
from umd_bench.cli.console import console
from umd_bench.cli.options import DataOption

if TYPE_CHECKING:
    import torch

    from umd_bench.bench.measurements.scale import Growth, ScaleFinding
    from umd_bench.bench.measurements.startup import StartupFinding
    from umd_bench.bench.tables import Finding
    from umd_bench.bench.timing.machine import Machine

    Job = Callable[[Progress], Finding]

app = typer.Typer()
PAGE = Path("docs/performance.md")
FIRST_STAGE_AIM, STAGE_AIM = 6000.0, 50.0  # milliseconds
SIZES = (1, 10, 100, 1000, 10_000)  # trials, stages


@app.command("sweep")
def bench_sweep_verb(
    stages: Annotated[int, typer.Option("--stages", min=2, help="Stages that do nothing, for the runner's cost.")] = 500,
    executor: Annotated[str, typer.Option("--on", help="Executor: ray, inline, slurm or submitit-local.")] = "ray",
    repeats: RepeatsOption = 5,
    data_root: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how long commands take to begin, a sweep until its first stage, and what the runner costs for each stage."""
    from umd_bench.orchestration.executors.registry import check_name

    check_name(executor)
    _, machine = here("cpu", None)
    show(lambda progress: _startup(stages, executor, repeats, data_root, machine, progress), as_json=as_json)


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
    """Run every benchmark in ten to fifteen minutes on two cores, and write their tables into docs/performance.md."""
    from rich.console import Console

    from umd_bench.bench.page import check_page, generated, write_page

    check_page(page)
    where, machine = here(device, threads)
    if machine.warning is not None:
        console.print(f"warning: {machine.warning}", style="yellow", highlight=False)
    jobs = _everything(where, machine)
    found: list[tuple[str, Finding]] = []
    started = time.perf_counter()
    with Console(stderr=True).status("starting") as status:
        for place, (command, job) in enumerate(jobs, start=1):
            begun = time.perf_counter()
            heading = f"{place} of {len(jobs)}: {command}"
            console.print(heading, highlight=False)
            found.append((command, job(lambda word, heading=heading: status.update(f"{heading}: {word}"))))  # type: ignore[misc]
            took = time.perf_counter() - started
            write_page(page, generated(found, took, of=len(jobs)))  # at once: an interrupted run keeps what it has
            console.print(f"  {time.perf_counter() - begun:.0f} s, {took / 60:.1f} minutes in all", highlight=False)
    console.print(f"wrote the tables of {len(found)} benchmarks into {page}", highlight=False)


def _everything(where: torch.device, machine: Machine) -> list[tuple[str, Job]]:
    """Each benchmark with the command that repeats it alone."""
    from umd_bench.bench.measurements.data import bench_data
    from umd_bench.bench.measurements.fid import bench_fid
    from umd_bench.bench.measurements.probe import bench_probe
    from umd_bench.bench.measurements.sample import bench_sample
    from umd_bench.bench.measurements.train import bench_train, train_spec
    from umd_bench.cli.options import folder_of_data

    def train(tier: str, model: str | None, batch: int | None, repeats: int) -> tuple[str, Job]:
        options = {"tier": tier, "model": model, "batch": batch, "repeats": repeats}
        words = "".join(f" --{name} {value}" for name, value in options.items() if value is not None)
        spec = train_spec(method="umd", tier=tier, model=model, size=None, stage="pretrain", batch=batch, device=where)

        def job(progress: Progress) -> Finding:
            return bench_train(
                spec, machine=machine, baseline=True, profile=True, repeats=repeats, device=where, progress=progress
            )

        return f"umd-bench bench train{words} --baseline --profile", job

    def data(progress: Progress) -> Finding:
        found = bench_data(
            data=None,
            data_root=folder_of_data(None),
            images=2000,
            batch=None,
            repeats=3,
            threads=None,
            device=where.type,
            progress=progress,
        )
        return found.with_machine(machine)

    def sample(progress: Progress) -> Finding:
        return bench_sample(
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

    on_cpu = where.type == "cpu"
    return [
        train("digits", None, None, 5),
        train("fashion", None, 64 if on_cpu else None, 3),
        train("imagenet64", "S/4", 16 if on_cpu else 256, 3),
        train("imagenet64", "B/4", 4 if on_cpu else 256, 3),
        ("umd-bench bench data --n 2000 --repeats 3", data),
        ("umd-bench bench sample --steps 5 --batch 100 --baseline", sample),
        (
            "umd-bench bench fid",
            lambda progress: bench_fid(machine=machine, repeats=3, device=where, progress=progress),
        ),
        ("umd-bench bench probe", lambda progress: bench_probe(machine=machine, repeats=3, device=where, progress=progress)),
        ("umd-bench bench sweep", lambda progress: _startup(500, "ray", 5, None, machine, progress)),
        ("umd-bench bench scale", lambda progress: _scale(1000, 3, where, machine, progress)),
    ]


def _startup(
    stages: int, executor: str, repeats: int, data_root: Path | None, machine: Machine, progress: Progress
) -> StartupFinding:
    """Processes and sweeps as they begin, and stages that do nothing on warm workers."""
    from umd_bench.bench.measurements.overhead import measure_overhead
    from umd_bench.bench.measurements.startup import Note, bench_startup, until_first_stage
    from umd_bench.cli.options import folder_of_data

    begun = []
    for repeat in range(min(3, repeats)):
        progress(f"a sweep on {executor} until its first stage: {repeat + 1}")
        with tempfile.TemporaryDirectory(prefix="umd-bench-first-") as folder:
            begun.append(until_first_stage(Path(folder), folder_of_data(data_root), executor=executor))
    workers = 1 if executor == "inline" else 2
    cost = measure_overhead(stages=stages, executor=executor, workers=workers, progress=progress)
    notes = (
        Note(f"a sweep on {executor} until its first stage runs", 1e3 * statistics.median(begun), aim=FIRST_STAGE_AIM),
        Note(f"a stage that does nothing, {stages} on {workers} {executor} workers", 1e3 * cost.seconds_per_stage, STAGE_AIM),
        Note("the same stage carried out directly, without a runner", 1e3 * cost.direct_seconds),
    )
    return bench_startup(machine=machine, repeats=repeats, notes=notes, progress=progress)


def _scale(largest: int, repeats: int, where: torch.device, machine: Machine, progress: Progress) -> ScaleFinding:
    from umd_bench.bench.measurements.scale import ScaleFinding, training_growths

    growths = training_growths(repeats=max(3, repeats), device=where, progress=progress)
    growths.append(_runner_growth(largest, progress))
    with tempfile.TemporaryDirectory(prefix="umd-bench-scale-") as folder:
        growths += _folder_growths(Path(folder), largest, repeats, progress)
    return ScaleFinding(machine, tuple(growths))


def _runner_growth(largest: int, progress: Progress) -> Growth:
    """Stages that do nothing on one warm Ray worker, until the last has its result."""
    from umd_bench.bench.measurements.overhead import measure_overhead
    from umd_bench.bench.measurements.scale import Growth

    sizes = tuple(size for size in SIZES if size <= largest)
    seconds = tuple(measure_overhead(stages=size, workers=1, progress=progress).seconds for size in sizes)
    return Growth("the runner, stages that do nothing", "the stages", sizes, seconds)


def _folder_growths(folder: Path, largest: int, repeats: int, progress: Progress) -> list[Growth]:
    from rich.console import Console

    from umd_bench.bench.measurements.scale import counted_growth
    from umd_bench.bench.timing.folders import NAME, made_up_axis_sweep, made_up_results, made_up_sweep, record_of
    from umd_bench.config.sweep.resolve import load_sweep
    from umd_bench.orchestration.graph import build_graph, trial_records
    from umd_bench.orchestration.monitor.status import status_table
    from umd_bench.reporting.report import print_report
    from umd_bench.store import write_sweep

    sizes = tuple(size for size in SIZES if size <= largest)
    files, axis_files, roots = {}, {}, {}
    for size in sizes:
        progress(f"a results folder of {size:,} trials")
        roots[size] = folder / f"results-{size}"
        sweep = made_up_results(roots[size], size)
        write_sweep(roots[size], record_of(sweep, trial_records(sweep.trials)))
        axis_files[size] = made_up_axis_sweep(roots[size], size)
        files[size] = made_up_sweep(roots[size], size)
    nowhere = Console(file=io.StringIO())
    works = {
        "read and expand a sweep, over seeds": lambda size: lambda: load_sweep(files[size]),
        "read and expand a sweep, over an axis": lambda size: lambda: load_sweep(axis_files[size]),
        "plan a finished sweep": lambda size: (lambda sweep: lambda: build_graph(roots[size], sweep.trials))(
            load_sweep(files[size])
        ),
        "status": lambda size: lambda: status_table(roots[size], NAME),
        "table: its files and its figure": lambda size: lambda: print_report(roots[size], NAME, nowhere),
    }
    return [
        counted_growth(what, "the trials", sizes, prepare, repeats=repeats, progress=progress)
        for what, prepare in works.items()
    ]
