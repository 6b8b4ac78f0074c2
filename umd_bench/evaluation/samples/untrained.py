"""Scores without any training: of samples drawn from initial weights, and of noise images.

They say how far the samples of trained weights have come. Both are drawn and scored with a generate stage's own settings: n,
labels, sampler, guidance, extractor, reference. Scores are cached in ``<data root>/statistics/``, under a hash of their inputs.

Shapes: N samples, B samples at once, C channels, H, W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.stage_spec import COMPONENT_VERSIONS, StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.data.open_data import source_images
from umd_bench.data.packs.pack import Pack
from umd_bench.data.vae import decoder_for
from umd_bench.engine.device import pick_device
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.networks.initialise import initial_model
from umd_bench.engine.samplers import sample_noise
from umd_bench.evaluation.extractors.contract import Extractor
from umd_bench.evaluation.extractors.registry import load_extractor
from umd_bench.evaluation.samples.drawing import SampleDrawer
from umd_bench.evaluation.samples.generate_stage import sample_labels
from umd_bench.evaluation.samples.scoring.evaluator import evaluator_for
from umd_bench.evaluation.storage.arrays import Arrays, load_or_compute
from umd_bench.evaluation.storage.cache_names import cache_name, numeric_environment

_VERSION = 1  # goes up when the same inputs would give other scores

Draw = Callable[[Sequence[int], Tensor | None, int], Tensor]  # (numbers, classes of all samples, seed) -> uint8 [B, C, H, W]


@dataclass(frozen=True)
class DrawnScores:
    """The Fréchet distance of one set of samples in the extractor's features, and the share of samples classified as requested.

    ``accuracy`` is in [0, 1], None if the samples have no classes, or the extractor has others.
    """

    distance: float
    accuracy: float | None


def untrained_scores(spec: StageSpec, weights: StageSpec, pack: Pack, metric: str) -> DrawnScores:
    """The first sample set of the generate stage ``spec``, drawn from the initial weights of its parent's model.

    ``weights`` is the spec of the parent, a training stage; its model has initial weights of its own seed, with classes if the
    stage has labels. Arms with one model and seed get the same scores. ``metric`` names one of the stage's Fréchet distances,
    such as ``fd_digits_cnn``: the scores are in the features of its extractor. Raises :class:`UserError` for other kinds of
    stages, and as :func:`~umd_bench.evaluation.samples.generate_stage.run_generate`.
    """
    stage, device = _stage(spec), pick_device(spec.resources.device)
    if not isinstance(weights.stage, TrainStage):
        raise UserError(f"a {weights.kind} stage has no initial weights: expected a pretrain or finetune stage")
    classes = len(pack.manifest.class_names) if weights.stage.labels else 0

    def draw() -> Draw:
        facts = pack.manifest
        model = initial_model(weights, size=facts.size, channels=facts.channels, classes=len(facts.class_names), device=device)
        model.eval().requires_grad_(requires_grad=False)
        return SampleDrawer(model, NoiseProcess(spec.noise, device), stage, decoder_for(pack, device)).draw

    model = weights.model.model_dump(mode="json")
    return _scores(spec, pack, metric, classes, draw, ["untrained", model, weights.seed, classes])


def noise_scores(spec: StageSpec, weights: StageSpec, pack: Pack, metric: str) -> DrawnScores:
    """As :func:`untrained_scores`, for the noise that the sampler of the generate stage ``spec`` begins with.

    The noise is standard normal, and is decoded as samples are; pixels are clipped to [-1, 1].
    """
    stage, device = _stage(spec), pick_device(spec.resources.device)
    classes = len(pack.manifest.class_names) if isinstance(weights.stage, TrainStage) and weights.stage.labels else 0

    def draw() -> Draw:
        decode, side = decoder_for(pack, device), pack.manifest.size
        shape = (pack.manifest.channels, side, side)
        return lambda indices, _, seed: decode(next(sample_noise(seed, indices, shape, device)))

    return _scores(spec, pack, metric, classes, draw, ["noise", stage.n, classes])


def _stage(spec: StageSpec) -> GenerateStage:
    if not isinstance(spec.stage, GenerateStage):
        raise UserError(f"a {spec.kind} stage draws nothing: expected a generate stage")
    return spec.stage


def _extractor(stage: GenerateStage, metric: str, images: Pack, device: torch.device) -> Extractor:
    """The stage's extractor whose Fréchet distance is called ``metric``."""
    for name in stage.all_extractors:
        extractor = load_extractor(name, device, images=images)
        if extractor.metric_name("fd") == metric:
            return extractor
    raise UserError(f"{metric} is the distance of none of the stage's extractors: {', '.join(stage.all_extractors)}")


def _scores(
    spec: StageSpec, pack: Pack, metric: str, classes: int, make_draw: Callable[[], Draw], inputs: list[Any]
) -> DrawnScores:
    """The scores cached under ``inputs``; if there are none, the set that ``make_draw()`` draws is scored and cached."""
    stage, device = _stage(spec), pick_device(spec.resources.device)
    images = source_images(pack)
    extractor = _extractor(stage, metric, images, device)

    def compute() -> Arrays:
        evaluator = evaluator_for(
            extractor,
            images,
            ("fd", "accuracy"),
            stage.reference,
            stage.n,
            held_out=stage.held_out_split,
            sha256=stage.reference_sha256,
        )
        seed = derive_seed(spec.seed, "generate/set", 0)
        label = sample_labels(stage, pack.split("train").labels, classes, seed) if classes else None
        samples = evaluator.accumulator(stage.n, label if extractor.data == pack.manifest.name else None)
        draw = make_draw()
        for start in range(0, stage.n, stage.batch):
            indices = range(start, min(start + stage.batch, stage.n))
            samples.update(draw(indices, label, seed), torch.arange(indices.start, indices.stop))
        values = evaluator.score(samples).values
        samples.close()
        return {name: np.array(value) for name, value in values.items()}

    settings = stage.identity(spec.model, spec.noise, seed=spec.seed, parent_ema=False)
    versions = [COMPONENT_VERSIONS[name] for name in ("engine", "generate")]
    hashed = [_VERSION, versions, *inputs, settings, pack.manifest.digest, extractor.hash, extractor.resize]
    name = cache_name([*hashed, *numeric_environment(device)])
    values = load_or_compute(pack.path.parent / "statistics" / f"{name}.cache", compute)
    accuracy = values.get("accuracy")
    return DrawnScores(float(values["fd"]), None if accuracy is None else float(accuracy))
