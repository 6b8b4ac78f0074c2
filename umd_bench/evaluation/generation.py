"""Samples and their scores: drawn in chunks, streamed through an extractor, kept only as one small picture.

Shapes: N samples, B samples at once, C channels, H, W.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.config.generating import GenerateStage
from umd_bench.config.randomness import derive_seed
from umd_bench.config.stage import StageSpec
from umd_bench.data.loader import to_uint8
from umd_bench.data.pack import Pack
from umd_bench.data.sources import data_facts
from umd_bench.engine.families import Sampled
from umd_bench.engine.loop import pick_device
from umd_bench.engine.noise_process import NoiseProcess
from umd_bench.engine.samplers import SAMPLERS, generate
from umd_bench.engine.snapshot import restore_sampled
from umd_bench.evaluation.extractors import Extractor, check_extractor, load_extractor
from umd_bench.evaluation.grids import draw_grid, grid_rows
from umd_bench.evaluation.reference import floor_distance, reference_gaussian
from umd_bench.evaluation.result import Fact, StageResult
from umd_bench.evaluation.statistics import Gaussian, Moments, frechet_distance, inception_score
from umd_bench.store.files import write_atomic
from umd_bench.store.run import Attempt, RunDir

IS_SPLITS = 10
_PROGRESS_SECONDS = 2.0


def run_generate(spec: StageSpec, parent: RunDir, pack: Pack, attempt: Attempt) -> StageResult:
    """Draw ``stage.n`` samples for each sampling seed, and score them against the reference split.

    Metrics are means over the sampling seeds, with the standard deviation (``_sd``) where there is more than one:
    ``fd_<extractor>``, the Fréchet distance (right, though strongly raised by its bias, for n <= D too); ``is_<extractor>``,
    the inception score; for a parent with classes ``accuracy_<extractor>``, the share of samples that the extractor reads as
    the class they were asked for, if it reads these classes; and ``floor_fd_<extractor>``, the distance of real images to the
    same reference. With the features that FID is defined by they are called ``fid``, ``is`` and ``floor_fid``.
    ``samples.png`` shows the first sampling seed's first samples, a row for each class.
    Raises :class:`UserError` for another kind of stage, missing weights, an extractor of another data set, and NaN samples.
    """
    stage = spec.stage
    if not isinstance(stage, GenerateStage) or spec.parent_nimg is None:
        raise UserError(f"a {spec.kind} stage draws nothing from a parent's snapshot: expected a generate stage with a parent")
    data = data_facts(spec.data, root=pack.path.parent)
    if data.vae is not None:
        raise UserError(
            f"samples of {data.name} are latents of {data.vae}, and this version has no decoder that makes images of them"
        )
    check_extractor(stage.extractor, data, path="stages.generate.extractor")
    device = pick_device(spec.resources.device)
    extractor = load_extractor(stage.extractor, device)
    reference = reference_gaussian(pack, stage.reference, extractor)
    floor = floor_distance(pack, stage.reference, stage.n, extractor)
    ema = stage.ema and spec.parent_ema
    model = restore_sampled(parent, spec.parent_nimg, source=data, ema=ema, device=device)
    sampling = _Sampling(model, NoiseProcess(spec.noise, device), stage, extractor, attempt)

    scores = []
    classes = len(pack.manifest.class_names) if spec.parent_labels else 0
    for sampling_seed in range(stage.sampling_seeds):
        seed = derive_seed(spec.seed, "generate/set", sampling_seed)
        label = sample_labels(stage, pack.split("train").labels, classes, seed) if classes else None
        rows = grid_rows(stage.n, label, classes) if sampling_seed == 0 else []
        readable = label if extractor.data == pack.manifest.name else None  # other classes say nothing of these
        scores.append(_score(sampling.draw_set(seed, label, rows), readable, reference))

    metrics = {}
    for name in scores[0]:
        values = [score[name] for score in scores]
        metrics[extractor.metric(name)] = float(np.mean(values))
        if len(values) > 1:
            metrics[f"{extractor.metric(name)}_sd"] = float(np.std(values, ddof=1))
    metrics[f"floor_{extractor.metric('fd')}"] = floor.distance
    provenance: dict[str, Fact] = {
        "extractor": extractor.name,
        "extractor_hash": extractor.hash,
        "reference": stage.reference,
        "reference_n": reference.count,
        "n": stage.n,
        "sampling_seeds": stage.sampling_seeds,
        "floor_n": floor.n,
        "floor_draws": floor.draws,
        "is_splits": min(IS_SPLITS, stage.n),
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
    }
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


@dataclass(frozen=True)
class _Set:
    """What is kept of a set of samples: its Gaussian, and the extractor's logits [N, K]."""

    gaussian: Gaussian
    logits: Tensor


@dataclass
class _Sampling:
    """Draws sets, and counts what they cost."""

    model: Sampled
    process: NoiseProcess
    stage: GenerateStage
    extractor: Extractor
    attempt: Attempt
    done: int = 0
    sample_seconds: float = 0.0
    extract_seconds: float = 0.0
    reported: float = field(default_factory=time.monotonic)

    def draw_set(self, seed: int, label: Tensor | None, rows: list[list[int]]) -> _Set:
        """Draw and extract samples 0..n-1 of the set that ``seed`` names; ``rows`` of them, if any, become samples.png."""
        moments: Moments | None = None
        logits = []
        shown = {index for row in rows for index in row}
        pictures: dict[int, Tensor] = {}
        for start in range(0, self.stage.n, self.stage.batch):
            indices = range(start, min(start + self.stage.batch, self.stage.n))
            images = self._draw(indices, label, seed)
            pictures |= {i: images[i - start].clone() for i in indices if i in shown}
            started = time.perf_counter()
            features, scores = self.extractor.features(images)
            self.extract_seconds += time.perf_counter() - started
            part = Moments.of(features)
            moments = part if moments is None else moments.merged(part)
            logits.append(scores)
            self._progress(len(indices))
        if pictures:
            self._publish([[pictures[i] for i in row] for row in rows if row])
        assert moments is not None  # n >= 2
        return _Set(moments.gaussian(), torch.cat(logits))

    def cost(self) -> dict[str, float]:
        """Seconds and samples a second so far."""
        return {
            "sample_seconds": self.sample_seconds,
            "extract_seconds": self.extract_seconds,
            "images_per_second": self.done / self.sample_seconds,
        }

    def _draw(self, indices: range, label: Tensor | None, seed: int) -> Tensor:
        """uint8 [B, C, H, W] on the CPU."""
        started = time.perf_counter()
        device = self.model.pos_embed.device
        asked = None if label is None else label[indices.start : indices.stop].to(device)
        x_0 = generate(self.model, self.process, self.stage, label=asked, indices=indices, seed=seed)
        if not x_0.isfinite().all():  # as uint8 it would be a picture like any other
            raise UserError(f"samples {indices.start}..{indices.stop - 1} are NaN or infinite: the weights are no use")
        images = to_uint8(x_0).cpu()
        self.sample_seconds += time.perf_counter() - started
        return images

    def _progress(self, n: int) -> None:
        self.done += n
        if time.monotonic() - self.reported >= _PROGRESS_SECONDS:
            self.reported = time.monotonic()
            self.attempt.event("progress", done=self.done, total=self.stage.n * self.stage.sampling_seeds)

    def _publish(self, rows: list[list[Tensor]]) -> None:
        path = self.attempt.path / "samples.png"
        write_atomic(path, draw_grid(rows))
        self.attempt.publish(path, self.attempt.run.artifacts / "samples.png")


def _score(samples: _Set, label: Tensor | None, reference: Gaussian) -> dict[str, float]:
    score, _ = inception_score(samples.logits, min(IS_SPLITS, len(samples.logits)))
    scores = {"fd": frechet_distance(samples.gaussian, reference), "is": score}
    if label is not None:
        scores["accuracy"] = (samples.logits.argmax(1) == label).double().mean().item()
    return scores
