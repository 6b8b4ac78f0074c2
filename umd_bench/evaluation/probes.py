"""The few-shot probe of a trained model: how much of the classes a linear read-out finds in the representation.

Shapes: N images, D features, C channels, H, W. Accuracies are shares in [0, 1].
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from umd_bench.config.errors import FieldError, UserError
from umd_bench.config.probing import ProbeStage
from umd_bench.config.randomness import derive_seed
from umd_bench.config.stage import StageSpec
from umd_bench.data.loader import to_unit
from umd_bench.data.pack import Pack
from umd_bench.data.sources import data_facts
from umd_bench.engine.families import Evaluated
from umd_bench.engine.loop import pick_device
from umd_bench.engine.noise_process import NoiseProcess
from umd_bench.engine.snapshot import restore_model
from umd_bench.evaluation.result import Fact, StageResult
from umd_bench.evaluation.ridge import draw_shots, fit_ridge
from umd_bench.store.run import Attempt, RunDir

# (x_0 float32 [B, C, H, W] in [-1, 1], split, indices of its rows in the split [B]) -> features [B, D]
Represent = Callable[[Tensor, str, NDArray[np.int64]], Tensor]
Shots = list[dict[int, NDArray[np.int64]]]  # by draw and number of shots: indices into the train split

_BATCH = 500


def run_probe(spec: StageSpec, parent: RunDir, pack: Pack, attempt: Attempt) -> StageResult:
    """Probe the raw weights of ``parent`` at ``spec.parent_nimg`` as the official implementation does.

    Metrics are means over ``stage.draws`` draws of the shots, with the standard deviation (``_sd``) where there is more than
    one: ``acc_<k>shot``, and ``pixel_acc_<k>shot`` of :func:`pixel_probe`. All test images are scored. Features are the
    representation at t = ``stage.t`` without mask and label; a t >= 1 noises image i of a split with noise of its own, the
    same in every trial of one seed. A class with fewer images than shots gives all it has, which is an event and a fact.
    ``pack`` is of ``spec.reads``, which need not be what the parent was trained on.
    Raises :class:`UserError` for another kind of stage, a t that is not resolved, missing weights, and features that are NaN.
    """
    stage = spec.stage
    if not isinstance(stage, ProbeStage) or spec.parent_nimg is None:
        raise UserError(f"a {spec.kind} stage is no probe of a parent's snapshot: expected a probe stage with a parent")
    if stage.t is None or not 0 <= stage.t <= spec.noise.timesteps:
        raise FieldError("stages.probe.t", stage.t, f"expected 0..{spec.noise.timesteps}")
    started = time.perf_counter()
    device = pick_device(spec.resources.device)
    data = data_facts(spec.data, root=pack.path.parent)
    model = restore_model(parent, spec.parent_nimg, source=data, device=device)
    represent = _representation(model, NoiseProcess(spec.noise, device), stage.t, spec.seed)
    shots = _shots(pack, stage, spec.seed)
    metrics = _accuracies("acc", pack, represent, shots, stage, device) | pixel_probe(pack, stage, spec.seed)
    facts: dict[str, Fact] = {
        "probe_position": model.position,
        "probe_t": stage.t,
        "shots": list(stage.shots),
        "draws": stage.draws,
        "ridge": stage.ridge,
        "bias": stage.bias,
        "reference": "test",
        "n": len(pack.split("test")),
        "ema": False,
    }
    return StageResult(metrics, facts | _counts(pack, shots, attempt), {"probe_seconds": time.perf_counter() - started})


def pixel_probe(pack: Pack, stage: ProbeStage, seed: int) -> dict[str, float]:
    """The same probe on the images themselves, in [-1, 1], with the same draws: the row that a representation should beat.

    ``pixel_acc_<k>shot`` and its ``_sd``, shares in [0, 1].
    """
    shots = _shots(pack, stage, seed)
    return _accuracies("pixel_acc", pack, lambda x_0, split, index: x_0.flatten(1), shots, stage, torch.device("cpu"))


def _representation(model: Evaluated, process: NoiseProcess, t: int, seed: int) -> Represent:
    def represent(x_0: Tensor, split: str, index: NDArray[np.int64]) -> Tensor:
        times = torch.full((len(x_0),), t, device=x_0.device)
        if t == 0:
            return model.represent(x_0, times)
        eps = np.stack([_noise(seed, split, int(i), tuple(x_0.shape[1:])) for i in index])
        return model.represent(process.q_sample(x_0, times, torch.from_numpy(eps).to(x_0.device)), times)

    return represent


def _noise(seed: int, split: str, index: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    rng = np.random.default_rng(derive_seed(seed, "probe/noise", split, index))
    return rng.standard_normal(shape, dtype=np.float32)


def _shots(pack: Pack, stage: ProbeStage, seed: int) -> Shots:
    labels, classes = pack.split("train").labels, len(pack.manifest.class_names)
    seeds = [derive_seed(seed, "probe/shots", draw) for draw in range(stage.draws)]
    return [draw_shots(labels, stage.shots, classes=classes, seed=draw_seed) for draw_seed in seeds]


def _accuracies(
    name: str, pack: Pack, represent: Represent, shots: Shots, stage: ProbeStage, device: torch.device
) -> dict[str, float]:
    """Mean and deviation over the draws, for each number of shots. Of the train split only what is drawn is represented."""
    drawn = np.unique(np.concatenate([indices for draw in shots for indices in draw.values()]))
    test_index = np.arange(len(pack.split("test")))
    train = _features(pack, "train", drawn, represent, device)
    test = _features(pack, "test", test_index, represent, device)
    labels = {split: torch.from_numpy(pack.split(split).labels) for split in ("train", "test")}
    metrics: dict[str, float] = {}
    for k in stage.shots:
        scores = []
        for draw in shots:
            x, y = train[np.searchsorted(drawn, draw[k])], labels["train"][draw[k]]
            probe = fit_ridge(x, y, classes=len(pack.manifest.class_names), ridge=stage.ridge, bias=stage.bias)
            scores.append(probe.accuracy(test, labels["test"]))
        metrics[f"{name}_{k}shot"] = float(np.mean(scores))
        if len(scores) > 1:
            metrics[f"{name}_{k}shot_sd"] = float(np.std(scores, ddof=1))
    return metrics


@torch.inference_mode()
def _features(pack: Pack, name: str, index: NDArray[np.int64], represent: Represent, device: torch.device) -> Tensor:
    """Features float32 [N, D], on the CPU, of the split's images ``index`` [N]; in batches of one size, for the same bits."""
    images = pack.split(name).images
    batches = np.split(index, range(_BATCH, len(index), _BATCH))
    parts = [represent(to_unit(torch.from_numpy(images[rows])).to(device), name, rows) for rows in batches]
    features = torch.cat([part.float().cpu() for part in parts])
    if not features.isfinite().all():
        raise UserError(f"the representation of the {name} split is NaN or infinite: the weights it comes from are no use")
    return features


def _counts(pack: Pack, shots: Shots, attempt: Attempt) -> dict[str, Fact]:
    """How many images each number of shots really was; every draw takes the same numbers."""
    counts: dict[str, Fact] = {}
    labels, names = pack.split("train").labels, pack.manifest.class_names
    for k, indices in shots[0].items():
        counts[f"images_{k}shot"] = len(indices)
        by_class = np.bincount(labels[indices], minlength=len(names))
        if len(indices) < k * len(names):
            short = ", ".join(f"{name} ({count})" for name, count in zip(names, by_class, strict=True) if count < k)
            attempt.event("warning", message=f"{k} shots are more than some classes of {pack.manifest.name} have: {short}")
            counts[f"class_counts_{k}shot"] = [int(count) for count in by_class]
    return counts
