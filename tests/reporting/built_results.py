"""Build a results folder as a sweep leaves it, with made-up numbers: real trials, keys and layout, but no training.

The numbers are smooth in the first axis and scattered by the seed, so that tables and figures look like real ones; each
number is a function of (trial, stage, metric), so that two builds are equal.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from umd_bench.config.sweep.resolve import Trial, load_sweep
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.store import Failure, RunDir, SweepRecord, TrialRecord, write_sweep
from umd_bench.store.files import write_json

SWEEPS = Path(__file__).parents[2] / "sweeps"
LEVEL = {"umd": 0.80, "mae": 0.86, "dit": 0.62, "maskdit": 0.66, "dit_scratch": 0.60}
FRECHET = {"umd": 9.0, "mae": 15.0, "dit": 7.5, "maskdit": 8.0, "dit_scratch": 8.5}
# Lengths that the tests set themselves, so that a tier may change its lengths.
PINNED = (
    "trial.stages.pretrain.nimg=40960",
    "trial.stages.finetune.nimg=20480",
    *(f"trial.stages.{stage}.batch=128" for stage in ("pretrain", "finetune")),
    *(f"trial.stages.{stage}.shots=[10, 100]" for stage in ("probe", "finetune_probe")),
    *(f"trial.stages.{stage}.ridge=10" for stage in ("probe", "finetune_probe")),
    "trial.stages.probe.draws=10",
    "trial.stages.best_probe=null",
    "trial.stages.probe_t1=null",
    "trial.stages.generate.steps=25",
    "trial.stages.generate.cfg_scale=1.5",
)
AXES: dict[str, dict[str, list[Any]]] = {
    "mask_ratio": {"stages.pretrain.corruption.mask_ratio": [0, 0.125, 0.25, 0.375, 0.5, 0.75]},
}
# Two arms instead of six, where a test builds a sweep of its own.
TWO_ARMS: dict[str, list[Any]] = {"stages.pretrain.corruption.mask_ratio": [0.25, 0.5]}
# A one-pixel PNG in place of a sample grid.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63606060000000040001f61738550000"
    "000049454e44ae426082"
)

Edit = Callable[[dict[str, Any]], None]


def build_sweep(
    root: Path,
    question: str = "mask_ratio",
    *,
    sets: tuple[str, ...] = (),
    axes: Mapping[str, list[Any]] | None = None,
    failed: Mapping[tuple[str, str], str] = {},
    skipped: Mapping[str, tuple[str, ...]] = {},
    edit: Callable[[Trial, str, dict[str, Any]], None] = lambda trial, stage, result: None,
) -> SweepRecord:
    """Write the run directories and the record of ``sweeps/<question>.yaml`` below ``root``, with other ``axes`` if given.

    ``failed`` maps (trial id, stage) to the state it failed with; ``skipped`` maps a trial id to the stages that were never
    begun; ``edit`` may change a result before it is written.
    """
    file = SWEEPS / f"{question}.yaml"
    varied = AXES.get(question) if axes is None else dict(axes)
    if varied is not None:
        root.mkdir(parents=True, exist_ok=True)
        document = yaml.safe_load(file.read_text()) | {"axes": varied}
        if varied != AXES.get(question):  # its baseline may be no arm of these axes
            document["report"] = {k: v for k, v in document.get("report", {}).items() if k != "baseline"}
        file = root / f"{question}.yaml"
        file.write_text(yaml.safe_dump(document, sort_keys=False))
    sweep = load_sweep(file, sets=(*PINNED, *sets))
    for trial in sweep.trials:
        for stage, spec in trial.specs.items():
            run = RunDir(root, spec.key)
            if stage in skipped.get(trial.id, ()):
                continue
            run.prepare(spec)
            if (trial.id, stage) in failed:
                _fail(run, failed[trial.id, stage])
            elif run.result() is None:
                result = made_up_result(trial, stage, spec)
                edit(trial, stage, result)
                finish(run, spec, result)
    record = SweepRecord(
        name=sweep.config.name,
        question=sweep.config.question,
        tier=sweep.config.tier,
        axes=sweep.config.axes,
        seeds=sweep.config.seeds,
        report=sweep.config.report.model_copy(update={"baseline": sweep.baseline}),
        trials=[
            TrialRecord(
                id=trial.id,
                method=trial.config.method,
                axes=trial.axes,
                seed=trial.config.seed,
                stages={name: spec.key for name, spec in trial.specs.items()},
            )
            for trial in sweep.trials
        ],
    )
    write_sweep(root, record)
    return record


def made_up_result(trial: Trial, stage: str, spec: StageSpec) -> dict[str, Any]:
    """``result.json`` of one stage."""
    metrics, facts = _scores(trial, stage, spec)
    return {
        "key": spec.key,
        "kind": spec.kind,
        "metrics": metrics,
        "facts": facts,
        "cost": {"seconds": 12.5 + trial.config.seed, "images_per_second": 3_200.0, "peak_memory_bytes": 512 * 2**20},
        "environment": {
            "umd_bench": "0.1.0",
            "torch": "2.14.1",
            "python": "3.11.9",
            "commit": "0123456789ab",
            "device": "cpu",
            "device_name": "A processor",
            "threads": 1,
            "world_size": 1,
            "host": "a-host",
        },
        "data": {"name": spec.data.name, "digest": "d" * 64},
        "exact": True,
        "attempts": 1,
    }


def finish(run: RunDir, spec: StageSpec, result: dict[str, Any]) -> None:
    """Write an attempt that ended with ``result``."""
    attempt = run.attempt_path(max(run.attempts(), default=0) + 1)
    attempt.mkdir(parents=True)
    write_json(attempt / "environment.json", result["environment"])
    lines: list[dict[str, Any]] = [{"event": "state", "time": 1_000.0, "state": "running"}]
    if isinstance(spec.stage, TrainStage):
        every = spec.stage.batch
        for nimg in range(every, spec.stage.nimg + 1, every):
            loss = 0.2 + math.exp(-nimg / 10_000)
            lines.append({"event": "metrics", "time": 1_000.0 + nimg / 1_000, "nimg": nimg, "loss": loss, "lr": 1e-3})
    lines.append({"event": "state", "time": 2_000.0, "state": "done"})
    (attempt / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if isinstance(spec.stage, GenerateStage):
        run.artifacts.mkdir(exist_ok=True)
        (run.artifacts / "samples.png").write_bytes(PNG)
    write_json(run.path / "result.json", result)


def _fail(run: RunDir, state: str) -> None:
    attempt = run.attempt_path(1)
    attempt.mkdir(parents=True, exist_ok=True)
    failure = Failure(state=state, message="the loss is not finite", fingerprint="f")
    write_json(attempt / "failure.json", failure.model_dump())


def _scores(trial: Trial, stage: str, spec: StageSpec) -> tuple[dict[str, float], dict[str, Any]]:
    seed = trial.config.seed
    scatter = random.Random(f"{trial.id}/{stage}")
    level, frechet = _quality(trial)
    match spec.stage:
        case TrainStage() as train:
            return {"loss": 0.2 + scatter.gauss(0, 0.01)}, {"nimg": train.nimg, "flops_per_image": 1.0e7}
        case ProbeStage() as probe:
            metrics: dict[str, float] = {}
            for shots in probe.shots:
                gain = 0.04 * math.log10(shots)
                metrics[f"acc_{shots}shot"] = level + gain + scatter.gauss(0, 0.008) - 0.02 * (stage != "probe")
                metrics[f"acc_{shots}shot_sd"] = 0.01
                metrics[f"pixel_acc_{shots}shot"] = 0.70 + gain + random.Random(seed + shots).gauss(0, 0.003)
            facts = {
                "shots": list(probe.shots),
                "draws": probe.draws,
                "probe_t": probe.t,
                "probe_position": "class tokens, mean",
            }
            return metrics, facts
        case GenerateStage() as generate:
            name = generate.extractor
            metrics = {
                f"fd_{name}": frechet + scatter.gauss(0, 0.35),
                f"is_{name}": 8.0 - 0.2 * frechet + scatter.gauss(0, 0.05),
                f"accuracy_{name}": 0.99 - 0.02 * frechet + scatter.gauss(0, 0.01),
                f"floor_fd_{name}": 0.41,
                f"fd_inf_{name}": 0.9 * frechet + scatter.gauss(0, 0.5),
                f"kid_{name}": 0.01 * frechet + scatter.gauss(0, 0.001),
                f"memorised_{name}": 0.05,
            }
            facts = {"extractor": name, "extractor_hash": "e" * 64, "reference": generate.reference, "reference_n": 360}
            facts["by_metric"] = {f"memorised_{name}": {"expected": 0.05, "alarm_above": 0.1, "held_out_n": 500}}
            facts |= {"n": generate.n, "sampler": generate.sampler, "steps": generate.steps, "eta": generate.eta}
            return metrics, facts | {"cfg_scale": generate.cfg_scale, "ema": True, "sampling_seeds": 1, "labels": "balanced"}


def _quality(trial: Trial) -> tuple[float, float]:
    """A probe accuracy and a Fréchet distance that look plausible for the trial."""
    level, frechet = LEVEL[trial.config.method], FRECHET[trial.config.method]
    for value in trial.axes.values():
        if isinstance(value, float):
            level += 0.12 * (value * (1 - value) - 0.23)
            frechet += 6 * (value - 0.2) ** 2
    return level, frechet
