"""Samples and their scores: drawn in batches, streamed through extractors, kept only as one small picture.

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
from umd_bench.data.packs.pack import Pack, images_of
from umd_bench.data.packs.sharded_array import ShardedArray
from umd_bench.data.vae import Decode, decoder_of
from umd_bench.engine.device import pick_device
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.families import Sampled
from umd_bench.engine.samplers import SAMPLERS, generate
from umd_bench.engine.training.compiling import compile_model, own_graphs
from umd_bench.engine.training.snapshot import restore_sampled
from umd_bench.evaluation.extractors.loading import load_extractor
from umd_bench.evaluation.extractors.registry import check_extractor
from umd_bench.evaluation.samples.accumulator import SampleAccumulator
from umd_bench.evaluation.samples.evaluator import evaluator_for
from umd_bench.evaluation.samples.grids import draw_grid, grid_rows
from umd_bench.evaluation.samples.sample_files import SampleWriter
from umd_bench.evaluation.samples.scores import IS_SPLITS, Scored
from umd_bench.evaluation.stage_result import Fact, StageResult
from umd_bench.store.files import write_atomic
from umd_bench.store.run import Attempt, RunDir

_PROGRESS_SECONDS = 2.0


def run_generate(spec: StageSpec, parent: RunDir, pack: Pack, attempt: Attempt) -> StageResult:
    """Draw ``stage.n`` samples for each sampling seed, and score them against the reference.

    Metrics are means over the sampling seeds, with the standard deviation (``_sd``) where there is more than one; judging.py
    says how they are made and scores.py which there are. Their names end in the extractor's: ``fd_<extractor>`` is the Fréchet
    distance (right, though strongly raised by its bias, for n <= D too), ``is_<extractor>`` the inception score;
    ``accuracy_<extractor>``, the share of samples that the extractor reads as the class they were asked for, is there if it
    reads the parent's classes; ``floor_fd_<extractor>`` is the distance of real images to the same split. With the features
    that FID is defined by they are called ``fid``, ``is`` and ``floor_fid``.
    ``samples.png`` shows the first sampling seed's first samples, a row for each class; ``neighbours.png``, where ``memorised``
    is asked for, its samples that are nearest to a training image, each beside that image; ``samples.npz``, where ``save`` is,
    all of its samples. Latents are decoded first, and scored against images. Raises :class:`UserError` for another kind of
    stage, missing weights, an extractor of another data set, a reference that cannot serve, and NaN samples.
    """
    with own_graphs() if spec.resources.compile else nullcontext():
        return _run(spec, parent, pack, attempt)


def _run(spec: StageSpec, parent: RunDir, pack: Pack, attempt: Attempt) -> StageResult:
    stage = spec.stage
    if not isinstance(stage, GenerateStage) or spec.parent_nimg is None:
        raise UserError(f"a {spec.kind} stage draws nothing from a parent's snapshot: expected a generate stage with a parent")
    data, images = data_facts(spec.data, root=pack.path.parent), images_of(pack)
    check_extractor(stage.extractor, data, path="stages.generate.extractor")
    for name in stage.more_extractors:
        check_extractor(name, data, path="stages.generate.more_extractors")
    device = pick_device(spec.resources.device)
    judges = []
    for name in stage.all_extractors:
        extractor = load_extractor(name, device)
        judge = evaluator_for(extractor, images, stage.scores, stage.reference, stage.n, sha256=stage.reference_sha256)
        judges.append(judge)
    ema = stage.ema and spec.parent_ema
    model = restore_sampled(parent, spec.parent_nimg, source=data, ema=ema, device=device)
    rows = None
    if spec.resources.compile:
        compile_model(model, device)
        rows = min(stage.batch, stage.n)
    sampling = _Sampling(model, NoiseProcess(spec.noise, device), stage, decoder_of(pack, device), attempt, rows)

    scored: list[list[Scored]] = [[] for _ in judges]
    classes = len(pack.manifest.class_names) if spec.parent_labels else 0
    for sampling_seed in range(stage.sampling_seeds):
        seed = derive_seed(spec.seed, "generate/set", sampling_seed)
        label = sample_labels(stage, pack.split("train").labels, classes, seed) if classes else None
        first = sampling_seed == 0
        scorers = [
            judge.scorer(stage.n, label if judge.extractor.data == pack.manifest.name else None)  # others' classes say nothing
            for judge in judges
        ]
        sampling.draw_set(
            seed, label, scorers, rows=grid_rows(stage.n, label, classes) if first else [], save=stage.save and first
        )
        started = time.perf_counter()
        for judge, scorer, sets in zip(judges, scorers, scored, strict=True):
            sets.append(judge.scored(scorer))
            scorer.close()
        sampling.score_seconds += time.perf_counter() - started
        if first and (pairs := scored[0][0].closest):
            sampling.show_neighbours(pairs, images.split("train").images, seed, label)

    metrics: dict[str, float] = {}
    by_metric: dict[str, dict[str, Fact]] = {}
    for judge, sets in zip(judges, scored, strict=True):
        own = judge.metrics(sets)
        metrics |= own
        by_metric |= judge.by_metric(sets)
        if judge is not judges[0]:  # the stage's facts are the first one's
            for name in own:
                by_metric[name] = {"further_extractor": True, **judge.facts(), **by_metric.get(name, {})}
    provenance: dict[str, Fact | dict[str, dict[str, Fact]]] = {
        **judges[0].facts(),
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
        provenance["sample_precision"] = stage.precision
    if (floor := judges[0].floor) is not None:
        provenance |= {"floor_n": floor.n, "floor_draws": floor.draws}
    return StageResult(metrics, provenance, sampling.cost())


def sample_labels(
    stage: GenerateStage, train_labels: np.ndarray[tuple[int], np.dtype[np.int64]], classes: int, seed: int
) -> Tensor:
    """The class that each sample is asked for: int64 [n] in 0..K-1, whatever the batch.

    ``balanced``: sample i gets class i mod K. ``drawn``: the label of a train image drawn for it, so that classes are as
    frequent as in the train split.
    """
    if stage.labels == "balanced":
        return torch.arange(stage.n) % classes
    drawn = [derive_seed(seed, "label", i) % len(train_labels) for i in range(stage.n)]
    return torch.from_numpy(train_labels[drawn])


@dataclass
class _Sampling:
    """Draws sets, and counts what they cost."""

    model: Sampled
    process: NoiseProcess
    stage: GenerateStage
    decode: Decode
    attempt: Attempt
    rows: int | None = None  # that every batch has, where the model is compiled for that shape
    done: int = 0
    sample_seconds: float = 0.0
    extract_seconds: float = 0.0
    score_seconds: float = 0.0
    reported: float = field(default_factory=time.monotonic)

    def draw_set(
        self, seed: int, label: Tensor | None, scorers: Sequence[SampleAccumulator], *, rows: list[list[int]], save: bool
    ) -> None:
        """Draw samples 0..n-1 of the set that ``seed`` names into the scorers.

        ``rows`` of them, if any, become samples.png, and all of them samples.npz where ``save``.
        """
        shown = {index for row in rows for index in row}
        pictures: dict[int, Tensor] = {}
        file = self.attempt.path / "samples.npz"
        with SampleWriter(file, self.stage.n, label) if save else nullcontext() as writer:
            for start in range(0, self.stage.n, self.stage.batch):
                indices = range(start, min(start + self.stage.batch, self.stage.n))
                images = self._draw(indices, label, seed)
                pictures |= {i: images[i - start].clone() for i in indices if i in shown}
                started = time.perf_counter()
                for scorer in scorers:
                    scorer.add(images, torch.arange(indices.start, indices.stop))
                if writer is not None:
                    writer.add(images)
                self.extract_seconds += time.perf_counter() - started
                self._progress(len(indices))
        if save:
            self.attempt.publish(file, self.attempt.run.artifacts / file.name)
        if pictures:
            self._publish("samples.png", [[pictures[i] for i in row] for row in rows if row])

    def show_neighbours(
        self, pairs: Sequence[tuple[int, int, float]], train: ShardedArray, seed: int, label: Tensor | None
    ) -> None:
        """neighbours.png: a row for each (sample, training image, distance), the sample left of the image.

        The samples are drawn again, since they were not kept: sample i is the same whatever it is drawn with.
        """
        images = self._draw([sample for sample, _, _ in pairs], label, seed)
        real = torch.from_numpy(train[np.array([index for _, index, _ in pairs])])
        self._publish("neighbours.png", [list(pair) for pair in zip(images, real, strict=True)])

    def cost(self) -> dict[str, float]:
        """Seconds and samples a second so far."""
        return {
            "sample_seconds": self.sample_seconds,
            "extract_seconds": self.extract_seconds,
            "score_seconds": self.score_seconds,
            "images_per_second": self.done / self.sample_seconds,
        }

    def _draw(self, indices: Sequence[int], label: Tensor | None, seed: int) -> Tensor:
        """uint8 [B, C, H, W] on the CPU."""
        started = time.perf_counter()
        device = self.model.pos_embed.device
        # Filled up with its last sample, the last batch has the shape of the others: drawing that again costs a batch at most,
        # and another shape would be compiled, and on a GPU recorded, once more.
        drawn = [*indices, *[indices[-1]] * ((self.rows or 0) - len(indices))]
        asked = None if label is None else label[drawn].to(device)
        x_0 = generate(self.model, self.process, self.stage, label=asked, indices=drawn, seed=seed)[: len(indices)]
        if not x_0.isfinite().all():  # as uint8 it would be a picture like any other
            raise UserError(f"samples {indices[0]}..{indices[-1]} are NaN or infinite: the weights are no use")
        images = self.decode(x_0)
        self.sample_seconds += time.perf_counter() - started
        return images

    def _progress(self, n: int) -> None:
        self.done += n
        if time.monotonic() - self.reported >= _PROGRESS_SECONDS:
            self.reported = time.monotonic()
            self.attempt.event("progress", done=self.done, total=self.stage.n * self.stage.sampling_seeds)

    def _publish(self, name: str, rows: list[list[Tensor]]) -> None:
        path = self.attempt.path / name
        write_atomic(path, draw_grid(rows))
        self.attempt.publish(path, self.attempt.run.artifacts / name)
