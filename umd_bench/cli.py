"""The command line: one function per verb, no logic of its own.

Exit codes: 0 done, 1 a stage failed, 2 a mistake in what was asked for, 130 interrupted.
Heavy libraries are imported inside the verbs, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from umd_bench.config.errors import UserError

if TYPE_CHECKING:
    from umd_bench.config.resolve import Trial
    from umd_bench.orchestration.runner import Progress

app = typer.Typer(
    name="umd-bench",
    help="Which corruption of an image auto-encoder serves both the representation and the samples?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Data sets: list, pack, verify.", no_args_is_help=True)
mlflow_app = typer.Typer(help="The tracking store: rebuild it from run directories, or look at it.", no_args_is_help=True)
extractor_app = typer.Typer(help="Feature extractors: list, train.", no_args_is_help=True)
app.add_typer(data_app, name="data")
app.add_typer(mlflow_app, name="mlflow")
app.add_typer(extractor_app, name="extractor")

PLAIN_WIDTH = 140  # columns of a table that is written to a file or a pipe
console = Console(width=None if sys.stdout.isatty() else PLAIN_WIDTH)

ResultsOption = Annotated[Path, typer.Option("--results", envvar="UMD_BENCH_RESULTS", help="Results folder.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data-root", envvar="UMD_BENCH_DATA", help="Folder of packed data sets (default: the user's cache)."),
]
SizeOption = Annotated[int | None, typer.Option("--size", min=1, help="Image side in pixels, where the data set has none.")]
TierOption = Annotated[
    str | None, typer.Option("--tier", help="Scale: digits, fashion, emoji64, imagenet64 and so on, or a YAML file.")
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Change one field; may be repeated.")
]
OnOption = Annotated[str, typer.Option("--on", help="Executor: ray (worker processes) or inline (this process).")]
WorkersOption = Annotated[int | None, typer.Option("--workers", min=1, help="Stages side by side (default: cores / threads).")]
TrackingOption = Annotated[
    str | None,
    typer.Option("--mlflow", metavar="URI", help="MLflow tracking URI, or 'off' (default: SQLite in the results folder)."),
]
SweepFile = Annotated[Path, typer.Argument(help="A sweep's YAML file.")]
RESULTS = Path("results")


@app.command()
def sweep(
    file: SweepFile,
    tier: TierOption = None,
    sets: SetOption = None,
    on: OnOption = "ray",
    workers: WorkersOption = None,
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
    mlflow: TrackingOption = None,
) -> None:
    """Run what a sweep still lacks, then print its table."""
    from umd_bench.config.resolve import load_sweep
    from umd_bench.orchestration.execute import Site, execute, prepare
    from umd_bench.orchestration.plan import sweep_record
    from umd_bench.store import StageState, write_sweep
    from umd_bench.tracking.background import BackgroundProjection

    resolved = load_sweep(file, tier=tier, sets=sets or [])
    site = Site(results, _data_root(data_root), on, workers)
    nodes = prepare(resolved.trials, site)
    record = sweep_record(resolved)
    write_sweep(results, record)
    reused = sum(node.state is StageState.DONE for node in nodes.values())
    console.print(f"{record.name} ({record.tier}): {len(record.trials)} trials, {len(nodes)} stages, {reused} reused")
    tracking = BackgroundProjection(mlflow, results, record)
    progress = execute(nodes, resolved.trials, site, console, on_change=lambda _: tracking.tick())
    if progress.finished or progress.reused:
        _print_report(results, record.name)
        console.print(tracking.finish(), highlight=False, soft_wrap=True)
    if not progress.complete:
        _explain(progress)


@app.command()
def plan(
    file: SweepFile,
    tier: TierOption = None,
    sets: SetOption = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Say what a sweep would run, what it would reuse and why. Starts nothing, needs no data."""
    from umd_bench.config.resolve import load_sweep
    from umd_bench.orchestration.checks import check_trials
    from umd_bench.orchestration.plan import build_graph, plan_table

    resolved = load_sweep(file, tier=tier, sets=sets or [])
    check_trials(resolved.trials)
    console.print(plan_table(results, build_graph(results, resolved.trials)))


@app.command()
def status(
    name: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="A sweep's name; all of them when left out.")] = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Show where sweeps stand, read from the run directories."""
    from umd_bench.orchestration.status import status_table

    console.print(status_table(results, name))


@app.command()
def table(
    name: Annotated[str, typer.Argument(metavar="SWEEP", help="A sweep's name.")],
    results: ResultsOption = RESULTS,
) -> None:
    """Write a sweep's tables and figure anew from the run directories, and print the table."""
    _print_report(results, name)


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

    _run_trial(load_trial(trial, tier=tier, sets=sets or []), results, data_root, on)


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
) -> None:
    """Draw images from a trained run into one PNG grid."""
    from umd_bench.config.documents import Document
    from umd_bench.config.trial import GenerateStage
    from umd_bench.config.validation import validate
    from umd_bench.orchestration.adhoc import draw_samples

    asked = {"n": n, "steps": steps, "cfg_scale": cfg_scale, "cfg_interval": cfg_interval, "eta": eta, "sampler": sampler}
    settings = validate(GenerateStage, Document({"parent": "run", "extractor": "none", **asked}))
    draw_samples(results, run, out, settings, seed)
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

    _run_trial(evaluation_trial(results, run, sets or []), results, data_root, "inline")


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
    site = Site(results, _data_root(data_root), "inline")
    progress = execute(prepare([trial], site), [trial], site, console)
    if not progress.complete:
        _explain(progress)
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


@app.command()
def schema(
    what: Annotated[str, typer.Argument(help="sweep or trial.")] = "sweep",
) -> None:
    """Print the JSON Schema of a sweep or trial file."""
    from umd_bench.config.resolve import json_schema

    sys.stdout.write(json_schema(what))


@app.command()
def doctor(
    results: ResultsOption = RESULTS,
    data_root: DataOption = None,
) -> None:
    """Check this machine: each line passes, warns or fails, with the remedy. Exit code 1 when one fails."""
    from umd_bench.orchestration.doctor import examine

    findings = examine(results, _data_root(data_root))
    for finding in findings:
        console.print(finding.line(), highlight=False)
    if any(finding.failed for finding in findings):
        raise typer.Exit(1)


@data_app.command("list")
def data_list(data_root: DataOption = None) -> None:
    """List the data sets and whether they are packed."""
    from umd_bench.data.pack import describe_sources

    for line in describe_sources(_data_root(data_root)):
        console.print(line, highlight=False, soft_wrap=True)


@data_app.command("pack")
def data_pack(
    name: Annotated[str, typer.Argument(help="A data set's name (see data list).")],
    folder: Annotated[Path | None, typer.Option("--folder", help="Where its original files are.")] = None,
    size: SizeOption = None,
    data_root: DataOption = None,
) -> None:
    """Read a data set's original files into memory-mapped arrays."""
    from umd_bench.data.pack import pack

    packed = pack(name, _data_root(data_root), folder, size=size)
    counts = ", ".join(f"{count} {split}" for split, count in packed.manifest.counts.items())
    console.print(f"{name}: {counts}, digest {packed.manifest.digest[:12]}", highlight=False)


@data_app.command("verify")
def data_verify(
    name: Annotated[str, typer.Argument(help="A packed data set's name.")],
    size: SizeOption = None,
    data_root: DataOption = None,
) -> None:
    """Compare the packed files with the sums in their manifest."""
    from umd_bench.data.pack import pack, verify

    packed = pack(name, _data_root(data_root), size=size)
    verify(packed)
    console.print(f"{name}: every file agrees with its sum (digest {packed.manifest.digest[:12]})", highlight=False)


@mlflow_app.command("push")
def mlflow_push(
    name: Annotated[str | None, typer.Argument(metavar="[SWEEP]", help="A sweep's name; all of them when left out.")] = None,
    uri: Annotated[str | None, typer.Option("--uri", help="Tracking URI (default: SQLite in the results folder).")] = None,
    results: ResultsOption = RESULTS,
) -> None:
    """Bring the tracking store up to the run directories; pushing twice adds nothing."""
    from umd_bench.tracking.projector import push

    for line in push(results, name, uri):
        console.print(line, highlight=False, soft_wrap=True)


@mlflow_app.command("ui")
def mlflow_ui(
    port: Annotated[int, typer.Option("--port", min=1, max=65535, help="Port on loopback.")] = 5000,
    results: ResultsOption = RESULTS,
) -> None:
    """Open MLflow's page on the default store, until Ctrl-C."""
    from umd_bench.tracking.projector import default_uri

    arguments = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", default_uri(results), "--port", str(port)]
    os.execv(sys.executable, arguments)


@extractor_app.command("list")
def extractor_list() -> None:
    """List the feature extractors and the hashes of their weights."""
    from umd_bench.evaluation.extractors import describe_extractors

    for line in describe_extractors():
        console.print(line, highlight=False, soft_wrap=True)


@extractor_app.command("train")
def extractor_train(
    name: Annotated[str, typer.Argument(help="digits_cnn, fashion_cnn or emoji_cnn.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the weights and their description.")],
    data_root: DataOption = None,
) -> None:
    """Train a small classifier whose features a Fréchet distance can use. The committed weights were made by this command."""
    from umd_bench.evaluation.classifier import train_extractor

    train_extractor(name, out, _data_root(data_root))
    console.print(f"wrote {out / name}.safetensors and its description", highlight=False)


def _data_root(option: Path | None) -> Path:
    from umd_bench.data.pack import data_root

    return option if option is not None else data_root()


def _run_trial(trial: Trial, results: Path, data_root: Path | None, on: str) -> None:
    from umd_bench.orchestration.execute import Site, execute, prepare
    from umd_bench.orchestration.status import metrics_table

    site = Site(results, _data_root(data_root), on)
    nodes = prepare([trial], site)
    progress = execute(nodes, [trial], site, console)
    console.print(metrics_table(results, nodes))
    if not progress.complete:
        _explain(progress)


def _print_report(results: Path, name: str) -> None:
    from umd_bench.reporting.report import print_report

    print_report(results, name, console)


def _explain(progress: Progress) -> None:
    from umd_bench.orchestration.runner import explain

    lines, code = explain(progress, shlex.join(["umd-bench", *sys.argv[1:]]))
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
    raise typer.Exit(code)


def main() -> None:
    """The console script: a :class:`UserError` is one line and exit code 2."""
    try:
        app()
    except UserError as error:
        Console(stderr=True).print(f"umd-bench: {error}", style="red", highlight=False, soft_wrap=True, markup=False)
        sys.exit(2)
