"""Benchmarks of starting up and of growth with size, and the list of all benchmarks with the commands that repeat them."""

from __future__ import annotations

import io
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console

from umd_bench.bench.measurements.data import bench_data
from umd_bench.bench.measurements.fid import bench_fid
from umd_bench.bench.measurements.overhead import measure_overhead
from umd_bench.bench.measurements.probe import bench_probe
from umd_bench.bench.measurements.sample import bench_sample
from umd_bench.bench.measurements.scale import Growth, ScaleResult, counted_growth, training_growths
from umd_bench.bench.measurements.startup import StartupResult, SweepTime, bench_startup, until_first_stage
from umd_bench.bench.measurements.train import bench_train, train_spec
from umd_bench.bench.synthetic import NAME, synthetic_axis_sweep, synthetic_results, synthetic_sweep
from umd_bench.bench.tables import BenchResult
from umd_bench.bench.timing.machine import Machine
from umd_bench.config.sweep.resolve import load_sweep
from umd_bench.orchestration.graph import build_graph
from umd_bench.orchestration.monitor.status import status_table
from umd_bench.reporting.report import print_report

Progress = Callable[[str], None]
Job = Callable[[Progress], BenchResult]

FIRST_STAGE_LIMIT, STAGE_LIMIT = 6000.0, 50.0  # milliseconds
SIZES = (1, 10, 100, 1000, 10_000)  # numbers of trials or stages


def every_benchmark(device: torch.device, machine: Machine, data_root: Path) -> list[tuple[str, Job]]:
    """``(command, job)`` of each benchmark: the command that runs it alone, and the function that runs it here."""

    def train(tier: str, model: str | None, batch: int | None, repeats: int) -> tuple[str, Job]:
        options = {"tier": tier, "model": model, "batch": batch, "repeats": repeats}
        arguments = "".join(f" --{name} {value}" for name, value in options.items() if value is not None)
        spec = train_spec(method="umd", tier=tier, model=model, size=None, stage="pretrain", batch=batch, device=device)

        def job(progress: Progress) -> BenchResult:
            return bench_train(
                spec, machine=machine, baseline=True, profile=True, repeats=repeats, device=device, progress=progress
            )

        return f"umd-bench bench train{arguments} --baseline --profile", job

    def data(progress: Progress) -> BenchResult:
        result = bench_data(
            data=None,
            data_root=data_root,
            images=2000,
            batch=None,
            repeats=3,
            threads=None,
            device=device.type,
            progress=progress,
        )
        return result.with_machine(machine)

    def sample(progress: Progress) -> BenchResult:
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
            device=device,
            progress=progress,
        )

    on_cpu = device.type == "cpu"
    return [
        train("digits", None, None, 5),
        train("fashion", None, 64 if on_cpu else None, 3),
        train("imagenet64", "S/4", 16 if on_cpu else 256, 3),
        train("imagenet64", "B/4", 4 if on_cpu else 256, 3),
        ("umd-bench bench data --n 2000 --repeats 3", data),
        ("umd-bench bench sample --steps 5 --batch 100 --baseline", sample),
        (
            "umd-bench bench fid",
            lambda progress: bench_fid(machine=machine, repeats=3, device=device, progress=progress),
        ),
        ("umd-bench bench probe", lambda progress: bench_probe(machine=machine, repeats=3, device=device, progress=progress)),
        ("umd-bench bench sweep", lambda progress: measure_startup(500, "ray", 5, data_root, machine, progress)),
        ("umd-bench bench scale", lambda progress: measure_scale(1000, 3, device, machine, progress)),
    ]


def measure_startup(
    stages: int, executor: str, repeats: int, data_root: Path, machine: Machine, progress: Progress
) -> StartupResult:
    """Measure how long processes and sweeps take to start, and how long an empty stage takes on started workers."""
    begun = []
    for repeat in range(min(3, repeats)):
        progress(f"a sweep on {executor} until its first stage: {repeat + 1}")
        with tempfile.TemporaryDirectory(prefix="umd-bench-first-") as folder:
            begun.append(until_first_stage(Path(folder), data_root, executor=executor))
    workers = 1 if executor == "inline" else 2
    cost = measure_overhead(stages=stages, executor=executor, workers=workers, progress=progress)
    sweep_times = (
        SweepTime(f"a sweep on {executor} until its first stage runs", 1e3 * statistics.median(begun), limit=FIRST_STAGE_LIMIT),
        SweepTime(
            f"one empty stage: the mean of {stages} on {workers} {executor} workers", 1e3 * cost.seconds_per_stage, STAGE_LIMIT
        ),
        SweepTime("the same stage run directly, without a scheduler", 1e3 * cost.direct_seconds),
    )
    return bench_startup(machine=machine, repeats=repeats, sweep_times=sweep_times, progress=progress)


def measure_scale(largest: int, repeats: int, device: torch.device, machine: Machine, progress: Progress) -> ScaleResult:
    """How costs grow with size: of a training step, of the scheduler, and of reading, planning, status and tables.

    The time of a step grows with batch, width and tokens, the scheduler's time with the number of stages, and the other times
    with the number of trials. ``largest`` limits both numbers.
    """
    growths = training_growths(repeats=max(3, repeats), device=device, progress=progress)
    growths.append(_scheduler_growth(largest, progress))
    with tempfile.TemporaryDirectory(prefix="umd-bench-scale-") as folder:
        growths += _folder_growths(Path(folder), largest, repeats, progress)
    return ScaleResult(machine, tuple(growths))


def _scheduler_growth(largest: int, progress: Progress) -> Growth:
    """How long one Ray worker that has already started takes for all empty stages, for several numbers of them."""
    sizes = tuple(size for size in SIZES if size <= largest)
    seconds = tuple(measure_overhead(stages=size, workers=1, progress=progress).seconds for size in sizes)
    return Growth("the scheduler, stages without work", "the stages", sizes, seconds)


def _folder_growths(folder: Path, largest: int, repeats: int, progress: Progress) -> list[Growth]:
    """How the times of reading a sweep file, planning, status and table grow with the number of trials."""
    sizes = tuple(size for size in SIZES if size <= largest)
    files, axis_files, roots = {}, {}, {}
    for size in sizes:
        progress(f"a results folder of {size:,} trials")
        roots[size] = folder / f"results-{size}"
        synthetic_results(roots[size], size)
        axis_files[size] = synthetic_axis_sweep(roots[size], size)
        files[size] = synthetic_sweep(roots[size], size)
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
        counted_growth(cost, "the trials", sizes, prepare, repeats=repeats, progress=progress)
        for cost, prepare in works.items()
    ]
