"""The generate stage: draws sets of samples, scores them with every extractor, and saves a small picture.

Samples stream through the extractors in batches and are not saved, unless the stage says so.
Shapes: N samples, B samples at once, C channels, H, W.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.datasets import data_facts
from umd_bench.data.open_data import source_images
from umd_bench.data.packs.pack import Pack
from umd_bench.data.packs.sharded_array import ShardedArray
from umd_bench.data.vae import decoder_for
from umd_bench.engine.device import pick_device
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.samplers import SAMPLERS
from umd_bench.engine.training.compiling import compile_model, own_graphs
from umd_bench.engine.training.snapshot import restore_sampled
from umd_bench.evaluation.extractors.contract import Extractor
from umd_bench.evaluation.extractors.registry import check_extractor, load_extractor
from umd_bench.evaluation.samples.drawing import SampleDrawer
from umd_bench.evaluation.samples.grids import SampleGrid, draw_grid, grid_rows
from umd_bench.evaluation.samples.sample_files import SampleWriter
from umd_bench.evaluation.samples.scoring.accumulator import SampleAccumulator
from umd_bench.evaluation.samples.scoring.evaluator import ByMetric, Evaluator, evaluator_for
from umd_bench.evaluation.samples.scoring.scores import IS_SPLITS, SetScores
from umd_bench.evaluation.stage_result import Fact, StageResult
from umd_bench.store.files import write_atomic
from umd_bench.store.run import Attempt, RunDir

_PROGRESS_SECONDS = 2.0


def run_generate(spec: StageSpec, parent: RunDir, pack: Pack, attempt: Attempt) -> StageResult:
    """Draw ``stage.n`` samples for each sampling seed, and score them against the reference.

    Metrics are means over the sampling seeds, with the standard deviation (``_sd``) if there are several. scoring/scores.py has
    the table of scores, and scoring/evaluator.py turns scores into metrics. A metric's name ends in the extractor's name:
    ``fd_<extractor>`` is the Fréchet distance (for n <= D it is defined but has a large bias), and ``is_<extractor>`` is
    the inception score. ``accuracy_<extractor>`` is the share of samples whose requested class the extractor predicts; it
    exists only if the extractor's classifier has the parent's classes. ``floor_fd_<extractor>`` is the distance of real images
    to the same reference. For Inception, which defines FID, the names are ``fid``, ``is`` and ``floor_fid``.

    ``samples.png`` shows the first samples of the first sampling seed, one row per class. ``neighbours.png``, if ``memorised``
    is scored, shows the samples nearest to a training image, each next to that image. ``samples.npz``, if ``stage.save``, holds
    all samples of the first sampling seed. Latents are decoded first and scored against images.

    Raises :class:`UserError` for another kind of stage, missing weights, an extractor of another data set, a reference that
    lacks an input of a score, and NaN samples.
    """
    with own_graphs() if spec.resources.compile else nullcontext():
        return _run(spec, parent, pack, attempt)


def _run(spec: StageSpec, parent: RunDir, pack: Pack, attempt: Attempt) -> StageResult:
    stage = spec.stage
    if not isinstance(stage, GenerateStage) or spec.parent_nimg is None:
        raise UserError(f"a {spec.kind} stage draws nothing from a parent's snapshot: expected a generate stage with a parent")
    data, images = data_facts(spec.data, root=pack.path.parent), source_images(pack)
    for name in stage.all_extractors:
        field = "extractor" if name == stage.extractor else "more_extractors"
        check_extractor(name, data, path=f"stages.generate.{field}", root=pack.path.parent)
    device = pick_device(spec.resources.device)
    extractors = [_extractor(name, spec, images, device) for name in stage.all_extractors]
    evaluators = [
        evaluator_for(
            extractor,
            images,
            stage.scores,
            stage.reference,
            stage.n,
            held_out=stage.held_out_split,
            sha256=stage.reference_sha256,
        )
        for extractor in extractors
    ]
    ema = stage.ema and spec.parent_ema
    model = restore_sampled(parent, spec.parent_nimg, source=data, ema=ema, device=device)
    if spec.resources.compile:
        compile_model(model, device)
    fixed_batch = min(stage.batch, stage.n) if spec.resources.compile else 0
    drawer = SampleDrawer(model, NoiseProcess(spec.noise, device), stage, decoder_for(pack, device), fixed_batch)
    work = _Work(drawer, stage, attempt)

    scored: list[list[SetScores]] = [[] for _ in evaluators]
    classes = len(pack.manifest.class_names) if spec.parent_labels else 0
    for sampling_seed in range(stage.sampling_seeds):
        seed = derive_seed(spec.seed, "generate/set", sampling_seed)
        label = sample_labels(stage, pack.split("train").labels, classes, seed) if classes else None
        first = sampling_seed == 0
        accumulators = [
            # An extractor that reads other classes cannot tell whether a sample has its requested class.
            evaluator.accumulator(stage.n, label if evaluator.extractor.data == pack.manifest.name else None)
            for evaluator in evaluators
        ]
        grid = SampleGrid(grid_rows(stage.n, label, classes)) if first else None
        work.draw_set(seed, label, accumulators, grid=grid, save=stage.save and first)
        work.score_set(evaluators, accumulators, scored)
        if first and (pairs := scored[0][0].nearest_pairs):
            work.show_neighbours(pairs, images.split("train").images, seed, label)

    metrics, by_metric = _metrics(evaluators, scored)
    facts: dict[str, Fact | ByMetric] = {
        **evaluators[0].facts(),
        "reference": stage.reference,
        "n": stage.n,
        "sampling_seeds": stage.sampling_seeds,
        "sampler": stage.sampler,
        "steps": stage.steps,
        "model_calls": SAMPLERS[stage.sampler].calls(stage.steps),
        "eta": stage.eta,
        "cfg_scale": stage.cfg_scale,
        "cfg_interval": None if stage.cfg_interval is None else list(stage.cfg_interval),
        "clip": stage.clip,
        "ema": ema,
        "labels": stage.labels if classes else None,
        "weights_nimg": spec.parent_nimg,
        "is_splits": min(IS_SPLITS, stage.n),
        "by_metric": by_metric,
    }
    if stage.precision != "fp32":
        facts["sample_precision"] = stage.precision
    if (floor := evaluators[0].floor) is not None:
        facts |= {"floor_n": floor.n, "floor_draws": floor.draws}
    return StageResult(metrics, facts, work.cost())


def _extractor(name: str, spec: StageSpec, images: Pack, device: torch.device) -> Extractor:
    """The extractor; raises :class:`UserError` if it was trained again after the stage was planned."""
    extractor = load_extractor(name, device, images=images)
    planned = spec.extractor_sha256.get(name, extractor.hash)
    if extractor.hash != planned:
        raise UserError(
            f"{name} was trained again after this stage was planned (SHA-256 {extractor.hash[:12]}, planned {planned[:12]}): "
            "start the command again"
        )
    return extractor


def sample_labels(
    stage: GenerateStage, train_labels: np.ndarray[tuple[int], np.dtype[np.int64]], classes: int, seed: int
) -> Tensor:
    """The class requested for each sample: int64 [n] in 0..K-1. The batch size does not change it.

    ``balanced``: sample i gets class i mod K. ``drawn``: each sample gets the label of a random train image, so that classes
    are as frequent as in the train split.
    """
    if stage.labels == "balanced":
        return torch.arange(stage.n) % classes
    drawn = [derive_seed(seed, "label", i) % len(train_labels) for i in range(stage.n)]
    return torch.from_numpy(train_labels[drawn])


def _metrics(evaluators: Sequence[Evaluator], scored: Sequence[Sequence[SetScores]]) -> tuple[dict[str, float], ByMetric]:
    """The metrics of all extractors, and the facts of single metrics.

    The stage's facts hold for the first extractor, so each metric of a further extractor carries the facts of that extractor.
    """
    metrics: dict[str, float] = {}
    by_metric: ByMetric = {}
    for evaluator, sets in zip(evaluators, scored, strict=True):
        own = evaluator.metrics(sets)
        metrics |= own
        by_metric |= evaluator.by_metric(sets)
        if evaluator is not evaluators[0]:
            for name in own:
                by_metric[name] = {"further_extractor": True, **evaluator.facts(), **by_metric.get(name, {})}
    return metrics, by_metric


@dataclass
class _Work:
    """Draws and scores sets, writes their files, reports progress, and counts the cost."""

    drawer: SampleDrawer
    stage: GenerateStage
    attempt: Attempt
    done: int = 0
    extract_seconds: float = 0.0
    score_seconds: float = 0.0
    reported: float = field(default_factory=time.monotonic)

    def draw_set(
        self,
        seed: int,
        label: Tensor | None,
        accumulators: Sequence[SampleAccumulator],
        *,
        grid: SampleGrid | None,
        save: bool,
    ) -> None:
        """Draw all samples of one set into the accumulators; with ``grid`` write samples.png, with ``save`` samples.npz."""
        file = self.attempt.path / "samples.npz"
        with SampleWriter(file, self.stage.n, label) if save else nullcontext() as writer:
            for indices, images in self.drawer.batches(label, seed):
                if grid is not None:
                    grid.add(indices, images)
                started = time.perf_counter()
                for accumulator in accumulators:
                    accumulator.update(images, torch.arange(indices.start, indices.stop))
                if writer is not None:
                    writer.add(images)
                self.extract_seconds += time.perf_counter() - started
                self._progress(len(indices))
        if save:
            self.attempt.publish(file, self.attempt.run.artifacts / file.name)
        if grid is not None:
            self._publish("samples.png", grid.png())

    def score_set(
        self,
        evaluators: Sequence[Evaluator],
        accumulators: Sequence[SampleAccumulator],
        scored: Sequence[list[SetScores]],
    ) -> None:
        """Score one accumulated set with each evaluator, append the scores to ``scored``, and free the accumulators' disk."""
        started = time.perf_counter()
        for evaluator, accumulator, sets in zip(evaluators, accumulators, scored, strict=True):
            sets.append(evaluator.score(accumulator))
            accumulator.close()
        self.score_seconds += time.perf_counter() - started

    def show_neighbours(
        self, pairs: Sequence[tuple[int, int, float]], train: ShardedArray, seed: int, label: Tensor | None
    ) -> None:
        """Write neighbours.png: a row for each (sample, training image, distance), with the sample left of the image.

        The samples are drawn again, since they were not saved. Sample i is the same in any batch.
        """
        images = self.drawer.draw([sample for sample, _, _ in pairs], label, seed)
        real = torch.from_numpy(train[np.array([index for _, index, _ in pairs])])
        self._publish("neighbours.png", draw_grid([list(pair) for pair in zip(images, real, strict=True)]))

    def cost(self) -> dict[str, float]:
        """Seconds spent drawing, extracting and scoring, and samples drawn per second."""
        return {
            "sample_seconds": self.drawer.seconds,
            "extract_seconds": self.extract_seconds,
            "score_seconds": self.score_seconds,
            "images_per_second": self.done / self.drawer.seconds,
        }

    def _progress(self, n: int) -> None:
        self.done += n
        if time.monotonic() - self.reported >= _PROGRESS_SECONDS:
            self.reported = time.monotonic()
            self.attempt.event("progress", done=self.done, total=self.stage.n * self.stage.sampling_seeds)

    def _publish(self, name: str, png: bytes) -> None:
        path = self.attempt.path / name
        write_atomic(path, png)
        self.attempt.publish(path, self.attempt.run.artifacts / name)
