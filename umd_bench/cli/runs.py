"""Verbs on single trials and runs: train, look, evaluate, import, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from umd_bench.cli.shared import (
    RESULTS,
    DataOption,
    OnOption,
    ResultsOption,
    SetOption,
    TierOption,
    console,
    explain_and_exit,
    folder_of_data,
    run_trial,
)

app = typer.Typer()


@app.command()
def train(
    trial: Annotated[str, typer.Argument(help="A trial's YAML file, or a method: umd, mae, dit, maskdit.")],
    tier: TierOption = None,
    sets: SetOption = None,
    on: OnOption = "inline",
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Run one trial, all of its stages, and print what came out."""
    from umd_bench.config.resolve import load_trial

    run_trial(load_trial(trial, tier=tier, sets=sets or []), results, data_root, on)


@app.command()
def sample(
    run: Annotated[str, typer.Argument(help="Key of a training stage, or the beginning of it.")],
    out: Annotated[Path, typer.Option("--out", help="PNG file to write.")] = Path("samples.png"),
    n: Annotated[int, typer.Option("--n", min=2, help="How many images.")] = 100,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Sampler steps.")] = 50,
    cfg_scale: Annotated[float, typer.Option("--cfg-scale", min=0, help="Guidance; 1 is none.")] = 1.0,
    cfg_interval: Annotated[
        tuple[float, float] | None, typer.Option("--cfg-interval", help="Guide between these two times only (default: always).")
    ] = None,
    eta: Annotated[float | None, typer.Option("--eta", help="ddim only: 0 deterministic, 1 ancestral (default: 1).")] = None,
    sampler: Annotated[str, typer.Option("--sampler", help="ddim, euler, heun, dpmpp-2m, ddim-x0, ddim-official.")] = "ddim",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Sampling seed.")] = 0,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Draw images from a trained run into one PNG grid."""
    from umd_bench.config.documents import Document
    from umd_bench.config.generating import GenerateStage
    from umd_bench.config.validation import validate
    from umd_bench.orchestration.adhoc import draw_samples

    asked = {"n": n, "steps": steps, "cfg_scale": cfg_scale, "cfg_interval": cfg_interval, "eta": eta, "sampler": sampler}
    settings = validate(GenerateStage, Document({"parent": "run", "extractor": "none", **asked}))
    draw_samples(results, run, out, settings, seed, folder_of_data(data_root))
    console.print(f"wrote {out}")


@app.command()
def evaluate(
    run: Annotated[str, typer.Argument(help="Key of a training stage, or the beginning of it.")],
    sets: SetOption = None,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Probe a trained run and score its samples; --set probe.shots=[1,10] or generate.n=1000 change how."""
    from umd_bench.orchestration.adhoc import evaluation_trial

    run_trial(evaluation_trial(results, run, sets or []), results, data_root, "inline")


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="A published checkpoint: .npz, .safetensors, .pth, .pt or .bin.")],
    layout: Annotated[str, typer.Option("--from", help="Whose parameter names it has: small-vision, mae or dit.")],
    nimg: Annotated[int, typer.Option("--nimg", min=1, help="Images the weights have seen, as their publisher says.")],
    clean: Annotated[
        bool | None,
        typer.Option("--clean/--no-clean", help="Trained on clean images too? Asked only where the layout leaves it open."),
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Data set to evaluate on (default: the one that fits).")] = None,
    heads: Annotated[int | None, typer.Option("--heads", min=1, help="Attention heads, where the width does not tell.")] = None,
    pool: Annotated[str, typer.Option("--pool", help="mae only: class (the class token) or patches (their mean).")] = "class",
    sets: SetOption = None,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Turn published weights into a run that evaluate, sample and export take as one of our own."""
    from umd_bench.orchestration.execute import Site, execute, prepare
    from umd_bench.orchestration.importing import import_trial, next_steps

    trial, notes = import_trial(file, layout, nimg=nimg, sees_clean=clean, data=data, heads=heads, pool=pool, sets=sets or [])
    site = Site(results, folder_of_data(data_root), "inline")
    progress = execute(prepare([trial], site), [trial], site, console)
    if not progress.complete:
        explain_and_exit(progress)
    key = trial.specs["import"].key
    for line in [
        *(f"note: {note}" for note in notes),
        f"run {key}, to be used by",
        *(f"  {c}" for c in next_steps(trial, key)),
    ]:
        console.print(line, highlight=False, soft_wrap=True)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Key of a run with weights, or the beginning of it.")],
    to: Annotated[str, typer.Option("--to", help="timm (a folder) or small-vision (an .npz file).")],
    out: Annotated[Path, typer.Option("--out", help="What to write; it must not exist, or be an empty folder.")],
    ema: Annotated[bool, typer.Option("--ema", help="The average of the weights instead of the weights.")] = False,
    results: ResultsOption = RESULTS,
) -> None:
    """Write a run's weights for other code: a timm VisionTransformer, or the official implementation's parameters."""
    from umd_bench.orchestration.exporting import export_run

    for line in export_run(results, run, to, out, ema=ema):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
