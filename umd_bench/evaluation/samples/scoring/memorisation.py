"""The memorisation alarm: are samples nearer to training images than new real images are?

A model that copies its training images scores well on every distance to the data. The radius is chosen so that 5% of
the held-out real images have a training image within it. ``memorised`` is this share for samples, as in the
data-copying test of Meehan et al. (arXiv 2004.05675), so the scale of the features does not matter. The share is about 5% for a
model that copies nothing, and larger for one that copies. It is also larger if samples are only less varied than real images
(strong guidance). So it is only an alarm, and a person has to look at the pictures of the nearest pairs.

Shapes: N samples, D features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch

from umd_bench.data.packs.pack import Pack
from umd_bench.evaluation.extractors.contract import Extractor
from umd_bench.evaluation.metrics.precision_recall import euclidean_neighbours
from umd_bench.evaluation.samples.scoring.reference import reference_of, split_features
from umd_bench.evaluation.storage.arrays import Arrays, load_or_compute
from umd_bench.evaluation.storage.cache_names import cache_name, numeric_environment
from umd_bench.evaluation.storage.rows import FeatureRows

PERCENTILE = 5.0
SHOWN = 10  # nearest pairs in the picture
_VERSION = 1


@dataclass(frozen=True)
class TrainingDistance:
    """Features of the training images, and a ``radius``: 5% of ``held_out`` real images have a training image within it.

    ``percentile`` is this share, in percent. The real images are of the split ``split``.
    """

    train: FeatureRows
    radius: float
    percentile: float
    held_out: int
    split: str = "test"


@dataclass(frozen=True)
class Memorisation:
    """The ``share`` of samples within the radius of a training image; chance does not explain a share above ``alarm_above``.

    ``nearest_pairs`` are (sample, training image, distance), nearest first.
    """

    share: float
    alarm_above: float
    nearest_pairs: tuple[tuple[int, int, float], ...]


def training_distance(pack: Pack, extractor: Extractor, held_out: str = "test") -> TrainingDistance:
    """The training images of ``pack``, and the radius from up to 10,000 images of the split ``held_out``.

    The radius is cached on disk.
    """
    train = split_features(pack, "train", extractor)
    unseen = reference_of(pack, held_out, extractor).features
    assert unseen is not None  # a split always has rows

    def compute() -> Arrays:
        distance, _ = euclidean_neighbours(unseen, train, 1, device=extractor.device)
        return {"radius": np.percentile(distance.numpy(), PERCENTILE)[None]}

    inputs = [_VERSION, pack.manifest.digest, held_out, extractor.hash, extractor.resize, PERCENTILE]
    name = cache_name(["memory", *inputs, *numeric_environment(extractor.device)])
    radius = load_or_compute(pack.path.parent / "statistics" / f"{name}.cache", compute)["radius"]
    return TrainingDistance(train, float(radius[0]), PERCENTILE, len(unseen), held_out)


def memorisation(samples: FeatureRows, training: TrainingDistance, *, device: torch.device | str = "cpu") -> Memorisation:
    """The share of ``samples`` [N, D] that lie within the radius of a training image, and the nearest pairs.

    ``alarm_above`` is the larger of twice the expected share, and the expected share plus three standard deviations of the
    difference between two shares, which chance can reach.
    """
    distance, index = euclidean_neighbours(samples, training.train, 1, device=device)
    n, p = samples.shape[0], training.percentile / 100
    by_chance = p + 3 * math.sqrt(p * (1 - p) * (1 / n + 1 / training.held_out))
    order = distance[:, 0].argsort()[:SHOWN]
    nearest_pairs = tuple((int(i), int(index[i, 0]), float(distance[i, 0])) for i in order)
    share = float((distance[:, 0] <= training.radius).double().mean())
    return Memorisation(share, max(2 * p, by_chance), nearest_pairs)
