"""The options that several verbs share, and the functions that turn them into settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from umd_bench.config.launch.cluster import ClusterConfig
    from umd_bench.config.launch.ray import RayConfig
    from umd_bench.orchestration.launch import Site

ResultsOption = Annotated[Path, typer.Option("--results", envvar="UMD_BENCH_RESULTS", help="Results folder.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data-root", envvar="UMD_BENCH_DATA", help="Folder of packed data sets (default: in the user's cache)."),
]
SizeOption = Annotated[
    int | None, typer.Option("--size", min=1, help="Image side in pixels, for a data set that is packed at several sizes.")
]
TierOption = Annotated[
    str | None, typer.Option("--tier", help="Scale of the trials: digits, fashion, emoji64, imagenet64, ..., or a YAML file.")
]
SplitOption = Annotated[
    str | None,
    typer.Option(
        "--split",
        metavar="test|validation",
        help="Split that every probe and score reads; give validation while you choose settings (default: each stage's own).",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change one field of the configuration; may be repeated."),
]
OnOption = Annotated[
    str,
    typer.Option(
        "--on",
        help="Where stages run: ray (worker processes), inline (this process), slurm (jobs), submitit-local (jobs on this "
        "machine).",
    ),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        "--cluster", metavar="NAME|FILE", help="Job settings: NAME for the file clusters/NAME.yaml, or a file's path."
    ),
]
SlurmOption = Annotated[
    list[str] | None,
    typer.Option(
        "--slurm", metavar="KEY=VALUE", help="Change one job setting, such as partition, time or gpus; may be repeated."
    ),
]
RayAddressOption = Annotated[
    str | None,
    typer.Option(
        "--ray-address",
        metavar="HOST:PORT|auto",
        help="With --on ray: join a running Ray instead of starting one; auto finds this machine's.",
    ),
]
GpusOption = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-stage",
        help="With --on ray: GPUs that each stage reserves, such as 0.25 (default: an equal share of this machine's).",
    ),
]
DetachOption = Annotated[
    bool, typer.Option("--detach", help="With --on slurm: submit every stage as a job, then leave without waiting.")
]
FuseOption = Annotated[
    str,
    typer.Option(
        "--fuse",
        help="Fuse training stages of one shape, so that they share steps: off, auto (where a measurement shows a gain) or on.",
    ),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers", min=1, help="Number of stages that run at the same time (default: cores divided by a stage's threads)."
    ),
]
TrackingOption = Annotated[
    str | None,
    typer.Option("--mlflow", metavar="URI", help="MLflow tracking URI, or off (default: SQLite in the results folder)."),
]
SweepFile = Annotated[
    str, typer.Argument(metavar="NAME|FILE", help="A shipped sweep's name (see `sweep --list`), or a YAML file's path.")
]
RESULTS = Path("results")
JOB_EXECUTORS = ("slurm", "submitit-local")


def folder_of_data(option: Path | None) -> Path:
    """``--data-root``, or else the data root in the user's cache."""
    from umd_bench.data.packs.manifest import data_root

    return option if option is not None else data_root()


def cluster_settings(on: str, name: str | None, options: list[str]) -> ClusterConfig:
    """Job settings from ``--cluster`` and ``--slurm``; :class:`UserError` if either is given for an executor without jobs."""
    from umd_bench.config.errors import UserError
    from umd_bench.config.launch.cluster import load_cluster

    if (name is not None or options) and on not in JOB_EXECUTORS:
        option = "--cluster" if name is not None else "--slurm"
        raise UserError(f"{option} is for jobs: expected --on {' or --on '.join(JOB_EXECUTORS)}, found --on {on}")
    return load_cluster(name, options)


def ray_settings(on: str, address: str | None, gpus: float | None) -> RayConfig:
    """Ray's settings from ``--ray-address`` and ``--gpus-per-stage``; :class:`UserError` if either is given without Ray."""
    from umd_bench.config.documents.document import Document, Location
    from umd_bench.config.documents.validation import validate
    from umd_bench.config.errors import UserError
    from umd_bench.config.launch.ray import RayConfig

    names = {"address": "--ray-address", "gpus": "--gpus-per-stage"}
    document = Document({})
    for name, value in (("address", address), ("gpus", gpus)):
        if value is None:
            continue
        if on != "ray":
            raise UserError(f"{names[name]} is for Ray: expected --on ray, found --on {on}")
        document = document.patched((name,), value, Location(names[name]))
    return validate(RayConfig, document)


def site_of(
    on: str,
    results: Path,
    data_root: Path | None,
    *,
    workers: int | None = None,
    cluster: str | None = None,
    slurm: list[str] | None = None,
    ray_address: str | None = None,
    gpus_per_stage: float | None = None,
    detach: bool = False,
    fuse: str = "off",
    searching: bool = False,
) -> Site:
    """Where a command runs, by its options. Writes nothing. Raises :class:`UserError` for options that do not fit together."""
    from umd_bench.config.errors import UserError
    from umd_bench.orchestration.executors.registry import check_name
    from umd_bench.orchestration.fusion.option import check_fuse
    from umd_bench.orchestration.launch import Site

    check_name(on)
    check_fuse(fuse, on, searching=searching, joined=ray_address is not None)
    if detach and on != "slurm":
        raise UserError(f"--detach leaves the work to a cluster: expected --on slurm, found --on {on}")
    jobs, ray = cluster_settings(on, cluster, slurm or []), ray_settings(on, ray_address, gpus_per_stage)
    return Site(results, folder_of_data(data_root), on, workers, jobs, ray, fuse)


def named_arm(against: str | None) -> dict[str, Any] | None:
    """Axis -> value of the arm that ``--against`` names."""
    from umd_bench.config.errors import UserError
    from umd_bench.config.sweep.arms import parsed_arm

    try:
        return None if against is None else parsed_arm(against)
    except ValueError as error:
        raise UserError(f"--against {against!r} is not accepted: {error}") from None
