"""Verbs on one trial or trained run: train, sample, evaluate and score, import and export weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umd_bench.cli.console import console, print_line
from umd_bench.cli.options import (
    RESULTS,
    ClusterOption,
    DataOption,
    DetachOption,
    GpusOption,
    OnOption,
    RayAddressOption,
    ResultsOption,
    SetOption,
    SizeOption,
    SlurmOption,
    SplitOption,
    TierOption,
    folder_of_data,
    site_of,
)

app = typer.Typer()

Run = Annotated[
    str,
    typer.Argument(
        help="A stage with weights: its key, or a trial's name for the trial's last one (TRIAL:STAGE for another). The "
        "beginning of a key or name is enough."
    ),
]
ProfileOption = Annotated[
    list[str] | None, typer.Option("--profile", help="A scoring protocol: umd-paper or adm-50k; may be repeated.")
]


@app.command()
def train(
    trial: Annotated[str, typer.Argument(help="A trial's YAML file, or a method: umd, mae, dit, maskdit or dit_scratch.")],
    tier: TierOption = None,
    split: SplitOption = None,
    sets: SetOption = None,
    on: OnOption = "inline",
    cluster: ClusterOption = None,
    slurm: SlurmOption = None,
    ray_address: RayAddressOption = None,
    gpus_per_stage: GpusOption = None,
    detach: DetachOption = False,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Run all stages of one trial, and print its metrics."""
    from umd_bench.cli.run_sweep import run_trial
    from umd_bench.config.sweep.resolve import load_trial

    site = site_of(
        on,
        results,
        data_root,
        cluster=cluster,
        slurm=slurm,
        ray_address=ray_address,
        gpus_per_stage=gpus_per_stage,
        detach=detach,
    )
    run_trial(load_trial(trial, tier=tier, split=split, sets=sets or [], data_root=site.data), site, detach=detach)


@app.command()
def sample(
    run: Run,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="PNG file for a grid of the first images (default: samples.png; with --npz none)."),
    ] = None,
    npz: Annotated[
        Path | None,
        typer.Option("--npz", help="File for all images, as ADM's evaluation reads it: arr_0, uint8 [N, H, W, 3]."),
    ] = None,
    n: Annotated[int, typer.Option("--n", min=2, help="Images to draw.")] = 100,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Sampler steps.")] = 50,
    cfg_scale: Annotated[
        float, typer.Option("--cfg-scale", min=0, help="Scale of classifier-free guidance; 1 is no guidance.")
    ] = 1.0,
    cfg_interval: Annotated[
        tuple[float, float] | None,
        typer.Option("--cfg-interval", help="Guide only between these two times t (default: always)."),
    ] = None,
    eta: Annotated[
        float | None, typer.Option("--eta", help="For ddim only: 0 is deterministic, 1 ancestral (default: 1).")
    ] = None,
    sampler: Annotated[str, typer.Option("--sampler", help="ddim, euler, heun, dpmpp-2m, ddim-x0, ddim-official.")] = "ddim",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the sampling noise.")] = 0,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Draw images from a trained run: the first ones as a grid in a PNG file, or all of them in an .npz file."""
    from umd_bench.config.documents.document import Document
    from umd_bench.config.documents.validation import validate
    from umd_bench.config.trial.generate_stage import GenerateStage
    from umd_bench.orchestration.runs.sample import draw_samples

    options = {"n": n, "steps": steps, "cfg_scale": cfg_scale, "cfg_interval": cfg_interval, "eta": eta, "sampler": sampler}
    settings = validate(GenerateStage, Document({"parent": "run", "extractor": "none", **options}))
    grid = Path("samples.png") if out is None and npz is None else out
    draw_samples(results, run, grid, settings, seed, data_root=folder_of_data(data_root), npz=npz)
    for path in (grid, npz):
        if path is not None:
            console.print(f"wrote {path}")


@app.command()
def evaluate(
    run: Run,
    profiles: ProfileOption = None,
    sets: SetOption = None,
    on: OnOption = "inline",
    cluster: ClusterOption = None,
    slurm: SlurmOption = None,
    ray_address: RayAddressOption = None,
    gpus_per_stage: GpusOption = None,
    detach: DetachOption = False,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Probe a trained run and score its samples, as its sweep does.

    Change a setting with --set, as in probe.shots=[1,10], probe.protocol=full or generate.n=1000.
    """
    from umd_bench.cli.run_sweep import run_trial
    from umd_bench.orchestration.runs.evaluate import evaluation_trial, left_out_notes, sweep_stages

    site = site_of(
        on,
        results,
        data_root,
        cluster=cluster,
        slurm=slurm,
        ray_address=ray_address,
        gpus_per_stage=gpus_per_stage,
        detach=detach,
    )
    defaults = sweep_stages(results, run)
    trial = evaluation_trial(results, run, sets or [], profiles or [], defaults, data_root=site.data)
    for kind, stage in defaults.items():
        if kind == "probe" or not profiles:
            print_line(f"note: {kind} as in {stage.trial}; --set changes a field")
    for note in left_out_notes(trial, profiles or []):
        print_line(f"note: {note}")
    run_trial(trial, site, detach=detach)


@app.command()
def score(
    samples: Annotated[
        Path, typer.Argument(help="An .npz file (arr_0, uint8 [N, H, W, 3]), an .npy file, or a folder of PNG files.")
    ],
    data: Annotated[str, typer.Option("--data", help="The data set that the samples imitate; its images are the reference.")],
    size: SizeOption = None,
    profiles: ProfileOption = None,
    extractors: Annotated[
        list[str] | None, typer.Option("--extractor", help="Feature extractor; may be repeated (default: the data set's own).")
    ] = None,
    n: Annotated[int | None, typer.Option("--n", min=2, help="Samples to score (default: the profile's number).")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of the table: a list with one object per profile.")
    ] = False,
    data_root: DataOption = None,
) -> None:
    """Score samples from any source: one column for each profile (default: every profile)."""
    import json

    from rich.progress import Progress

    from umd_bench.config.documents.presets import profile_names
    from umd_bench.config.trial.data import DataConfig
    from umd_bench.orchestration.runs.score_file import score_samples, scores_json, scores_table

    with Progress(console=console, transient=True, disable=as_json or not console.is_terminal) as bar:
        task = bar.add_task("extracting", total=None)
        scores = score_samples(
            samples,
            DataConfig(name=data, size=size),
            folder_of_data(data_root),
            profiles or profile_names(),
            extractors or (),
            n,
            lambda done, total: bar.update(task, completed=done, total=total),
        )
    if as_json:
        print(json.dumps(scores_json(scores), indent=1))
    else:
        console.print(scores_table(scores, f"{samples}, as samples of {data}"))


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A published checkpoint: .npz, .safetensors, .pth, .pt or .bin.")],
    layout: Annotated[
        str, typer.Option("--from", help="The code whose parameter names the file uses: small-vision, mae or dit.")
    ],
    nimg: Annotated[int, typer.Option("--nimg", min=1, help="Training images that the weights have seen, as published.")],
    clean: Annotated[
        bool | None,
        typer.Option(
            "--clean/--no-clean", help="Whether training included clean images; needed only if the layout does not imply it."
        ),
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Data set to evaluate on (default: the one that fits).")] = None,
    heads: Annotated[
        int | None, typer.Option("--heads", min=1, help="Attention heads, if the width does not imply their number.")
    ] = None,
    pool: Annotated[
        str,
        typer.Option(
            "--pool", help="For mae only: the representation is the class token (class) or the mean over patches (patches)."
        ),
    ] = "class",
    sets: SetOption = None,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Turn published weights into a run that evaluate, sample and export accept like any other."""
    from umd_bench.cli.run_sweep import explain_and_exit
    from umd_bench.orchestration.launch import Site, execute, prepare
    from umd_bench.orchestration.runs.import_weights import import_trial, next_steps
    from umd_bench.orchestration.scheduler import Scheduler
    from umd_bench.orchestration.trial_source import Grid

    trial, notes = import_trial(file, layout, nimg=nimg, sees_clean=clean, data=data, heads=heads, pool=pool, sets=sets or [])
    site = Site(results, folder_of_data(data_root), "inline")
    progress = execute(Scheduler(results, Grid(prepare([trial], site))), site, console)
    if not progress.complete:
        explain_and_exit(progress)
    key = trial.specs["import"].key
    for note in notes:
        print_line(f"note: {note}")
    print_line(f"run {key}, to be used by")
    for command in next_steps(trial, key):
        print_line(f"  {command}")


@app.command()
def export(
    run: Run,
    to: Annotated[str, typer.Option("--to", help="timm (a folder) or small-vision (an .npz file).")],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="The file or folder to write; it must not exist yet, except that timm accepts an empty folder."
        ),
    ],
    ema: Annotated[
        bool, typer.Option("--ema", help="Export the moving average of the weights (EMA) instead of the weights.")
    ] = False,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Write a run's weights for other code: as a timm VisionTransformer, or as the official implementation's parameters."""
    from umd_bench.orchestration.runs.export_weights import export_run

    for line in export_run(results, run, to, out, ema=ema, data_root=folder_of_data(data_root)):
        print_line(line)
