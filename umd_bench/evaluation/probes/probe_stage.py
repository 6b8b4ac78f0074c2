"""The probe stage: how well simple classifiers read the classes from a representation, and from the raw pixels.

The classifiers are few-shot ridge regression (ridge.py), k nearest neighbours (knn.py) and a linear layer (linear_probe.py), on
cached features (representation.py). Shapes: N images, D features. Accuracies are shares in [0, 1].
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.probe_stage import ProbeStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.datasets import data_facts
from umd_bench.data.packs.pack import Pack
from umd_bench.engine.device import pick_device
from umd_bench.evaluation.probes.knn import knn_accuracies
from umd_bench.evaluation.probes.linear_probe import linear_probe
from umd_bench.evaluation.probes.representation import FOLDER, Pixels, Representation
from umd_bench.evaluation.probes.ridge import RidgeProbe, draw_shots, fit_ridge, fit_ridge_path
from umd_bench.evaluation.stage_result import Fact, StageResult
from umd_bench.evaluation.storage.arrays import load_or_compute
from umd_bench.evaluation.storage.cache_names import cache_name, numeric_environment
from umd_bench.evaluation.storage.rows import FeatureRows, Index
from umd_bench.store.run import Attempt, RunDir

Shots = list[dict[int, NDArray[np.int64]]]  # for each draw and number of shots: indices into the train split
Metrics = dict[str, float]
Facts = dict[str, Fact]

_PIXELS_VERSION = 1  # goes up when the same images would give other numbers


def run_probe(spec: StageSpec, parent: RunDir, pack: Pack, attempt: Attempt) -> StageResult:
    """Probe the raw weights of ``parent`` at ``spec.parent_nimg``.

    The stage selects the metrics: ``acc_<k>shot``, means over ``stage.draws`` draws of the shots, with the standard deviation
    (``_sd``) if there are several draws; ``acc_knn<k>``; ``acc_linear``. :func:`pixel_probe` adds each of them for the pixels,
    as ``pixel_acc_...``. All images of ``stage.split`` are scored, and only that split and the training split are opened.
    Features are the representation at t = ``stage.t``, without mask and label. At t >= 1, each image has its own noise, the
    same in every trial of one seed. If a class has fewer images than shots, all of its images are used, and an event and a fact
    say so. ``pack`` holds ``spec.input_data``, which can differ from the data that the parent was trained on.

    Raises :class:`UserError` for another kind of stage, a t, block or pool that the parent does not have, missing weights, and
    features that are NaN or infinite.
    """
    started = time.perf_counter()
    device = pick_device(spec.resources.device)
    representation = Representation(spec, parent, data_facts(spec.data, root=pack.path.parent), device)
    stage = spec.stage
    assert isinstance(stage, ProbeStage)
    shots = _shots(pack, stage, spec.seed)
    drawn = None if stage.reads_all else np.unique(np.concatenate([rows for draw in shots for rows in draw.values()]))
    train, scored = representation.of(pack, "train", drawn), representation.of(pack, stage.split)
    metrics, facts = _few_shot("acc", pack, train, scored, shots, stage, drawn)
    more, more_facts = _whole_split("acc", pack, train, scored, stage, spec.seed, device)
    metrics |= more | pixel_probe(pack, stage, spec.seed, device=device, cache=parent.root / FOLDER)
    facts |= more_facts | {
        "probe_position": representation.position,
        "probe_t": stage.t,
        "reference": stage.split,
        "n": len(pack.split(stage.split)),
        "ema": False,
    }
    if facts.get("linear_lr_at_edge"):
        rates = ", ".join(f"{lr:g}" for lr in stage.linear.lr_per_256) if stage.linear else ""
        attempt.event("warning", message=f"the best learning rate of the linear probe is an end of {rates}: give a wider range")
    return StageResult(metrics, facts | _counts(pack, shots, attempt), {"probe_seconds": time.perf_counter() - started})


def pixel_probe(
    pack: Pack, stage: ProbeStage, seed: int, *, device: torch.device | str = "cpu", cache: Path | None = None
) -> Metrics:
    """The same probes of the images themselves, in [-1, 1], with the same draws: the baseline of a representation.

    The metrics are ``pixel_acc_<k>shot`` and its ``_sd``, ``pixel_acc_knn<k>`` and ``pixel_acc_linear``, in [0, 1]. Latents are
    probed without decoding, and their metrics are named ``latent_acc_...``. The probes that read every image have the same
    results in every arm of a sweep, so these are cached in the folder ``cache`` (None: not cached).
    """
    name = "pixel_acc" if pack.manifest.vae is None else "latent_acc"
    train, scored = (Pixels(pack.split(split)) for split in ("train", stage.split))
    metrics, _ = _few_shot(name, pack, train, scored, _shots(pack, stage, seed), stage, None)
    if not stage.reads_all:
        return metrics

    def compute() -> dict[str, NDArray[np.float64]]:
        accuracies, _ = _whole_split(name, pack, train, scored, stage, seed, torch.device(device))
        return {name: np.array(value) for name, value in accuracies.items()}

    if cache is None:
        arrays = compute()
    else:
        fields = stage.model_dump(mode="json", include={"knn", "linear"})
        inputs = [_PIXELS_VERSION, pack.manifest.digest, stage.split, fields, seed, *numeric_environment(torch.device(device))]
        arrays = load_or_compute(cache / f"{cache_name(inputs)}.cache", compute)
    return metrics | {name: float(value) for name, value in arrays.items()}


def _shots(pack: Pack, stage: ProbeStage, seed: int) -> Shots:
    labels, classes = pack.split("train").labels, len(pack.manifest.class_names)
    seeds = [derive_seed(seed, "probe/shots", draw) for draw in range(stage.draws)]
    return [draw_shots(labels, stage.shots, classes=classes, seed=draw_seed) for draw_seed in seeds]


def _few_shot(
    name: str, pack: Pack, train: FeatureRows, scored: FeatureRows, shots: Shots, stage: ProbeStage, drawn: Index | None
) -> tuple[Metrics, Facts]:
    """Mean and deviation over the draws for each number of shots. ``train`` has the rows ``drawn`` of the split (None: all)."""
    if not stage.shots:
        return {}, {}
    labels = {split: torch.from_numpy(pack.split(split).labels) for split in ("train", stage.split)}
    x_scored = torch.from_numpy(np.array(scored[:]))
    metrics: Metrics = {}
    facts: Facts = {"shots": list(stage.shots), "draws": stage.draws, "bias": stage.bias}
    facts |= {"ridges": list(stage.ridge)} if isinstance(stage.ridge, tuple) else {"ridge": stage.ridge}
    for k in stage.shots:
        scores, penalties = [], []
        for draw in shots:
            rows = draw[k] if drawn is None else np.searchsorted(drawn, draw[k])
            x, y = torch.from_numpy(np.array(train[rows])), labels["train"][draw[k]]
            probe, penalty = _fitted(x, y, len(pack.manifest.class_names), stage)
            scores.append(probe.accuracy(x_scored, labels[stage.split]))
            penalties.append(penalty)
        metrics[f"{name}_{k}shot"] = float(np.mean(scores))
        if len(scores) > 1:
            metrics[f"{name}_{k}shot_sd"] = float(np.std(scores, ddof=1))
        if isinstance(stage.ridge, tuple):
            facts[f"ridge_{k}shot"] = penalties
    return metrics, facts


def _fitted(x: torch.Tensor, y: torch.Tensor, classes: int, stage: ProbeStage) -> tuple[RidgeProbe, float]:
    """The probe fitted to these shots, and its penalty.

    If the stage lists several penalties, the one with the smallest leave-one-out error is chosen.
    """
    if not isinstance(stage.ridge, tuple):
        return fit_ridge(x, y, classes=classes, ridge=stage.ridge, bias=stage.bias), stage.ridge
    path = fit_ridge_path(x, y, classes=classes, ridges=stage.ridge, bias=stage.bias)
    return path.probe(path.best), path.ridges[path.best]


def _whole_split(
    name: str, pack: Pack, train: FeatureRows, scored: FeatureRows, stage: ProbeStage, seed: int, device: torch.device
) -> tuple[Metrics, Facts]:
    """The probes that read every training image."""
    metrics: Metrics = {}
    facts: Facts = {}
    y_train, y_scored = (pack.split(split).labels for split in ("train", stage.split))
    classes = len(pack.manifest.class_names)
    if stage.knn:
        labels = torch.from_numpy(y_train), torch.from_numpy(y_scored)
        accuracies = knn_accuracies(train, labels[0], scored, labels[1], classes=classes, ks=stage.knn, device=device)
        metrics |= {f"{name}_knn{k}": accuracy for k, accuracy in accuracies.items()}
        facts["knn"] = list(stage.knn)
    if stage.linear is not None:
        config = stage.linear
        result = linear_probe(train, y_train, scored, y_scored, classes=classes, config=config, seed=seed, device=device)
        metrics[f"{name}_linear"] = result.accuracy
        facts |= {
            "linear_lr": result.lr,
            "linear_lr_at_edge": result.at_edge,
            "linear_lrs": list(result.lrs),
            "linear_held_out": list(result.held_out),
            "linear_batch": min(config.batch, len(y_train)),
            "linear_epochs": config.epochs,
        }
    return metrics, facts


def _counts(pack: Pack, shots: Shots, attempt: Attempt) -> dict[str, Fact]:
    """The number of images for each number of shots, which is the same in every draw; warns if a class has too few."""
    counts: dict[str, Fact] = {}
    labels, names = pack.split("train").labels, pack.manifest.class_names
    for k, indices in (shots[0] if shots else {}).items():
        counts[f"images_{k}shot"] = len(indices)
        by_class = np.bincount(labels[indices], minlength=len(names))
        if len(indices) < k * len(names):
            short = ", ".join(f"{name} ({count})" for name, count in zip(names, by_class, strict=True) if count < k)
            attempt.event("warning", message=f"{k} shots are more than some classes of {pack.manifest.name} have: {short}")
            counts[f"class_counts_{k}shot"] = [int(count) for count in by_class]
    return counts
