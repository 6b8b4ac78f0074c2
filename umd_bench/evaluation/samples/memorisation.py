"""The memorisation alarm: whether samples lie nearer to training images than real images that were held out do.

A model that copies scores well on every distance to the data. What gives it away is that its samples are nearer to the training
set than new images of the same kind are: the held-out images are the yardstick, as in the data-copying test of Meehan et al.
(arXiv 2004.05675), so nothing depends on the scale of the features. ``memorised`` is the share of samples that are nearer to
a training image than 5% of the held-out images are: 5% where nothing is copied, more where samples are copies, and also more
where they are only less varied than images are (strong guidance): an alarm, which the pictures of the nearest pairs decide.

Shapes: N samples, D features.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass

import numpy as np
import torch

from umd_bench.data.packs.pack import Pack
from umd_bench.evaluation.extractors.loading import Extractor
from umd_bench.evaluation.metrics.precision_recall import nearest
from umd_bench.evaluation.samples.reference import reference_of, split_features
from umd_bench.evaluation.storage.arrays import Arrays, cached
from umd_bench.evaluation.storage.spool import FeatureRows

PERCENTILE = 5.0
SHOWN = 10  # nearest pairs to look at
_VERSION = 1


@dataclass(frozen=True)
class Memory:
    """The training images' features, and the ``radius`` within which ``percentile`` % of ``held_out`` other images have one."""

    train: FeatureRows
    radius: float
    percentile: float
    held_out: int


@dataclass(frozen=True)
class Memorised:
    """``share`` of samples within the radius; ``alarm_above`` the share that chance does not reach.

    ``closest`` are the nearest pairs, nearest first: sample, training image, distance.
    """

    share: float
    alarm_above: float
    closest: tuple[tuple[int, int, float], ...]


def memory_of(pack: Pack, extractor: Extractor) -> Memory:
    """What samples of ``pack`` are held against: its train split, and up to 10,000 test images. The radius is kept on disk."""
    train = split_features(pack, "train", extractor)
    test = reference_of(pack, "test", extractor).features
    assert test is not None  # a split has its rows

    def compute() -> Arrays:
        distance, _ = nearest(test, train, 1, device=extractor.device)
        return {"radius": np.percentile(distance.numpy(), PERCENTILE)[None]}

    made_of = [_VERSION, pack.manifest.digest, extractor.hash, extractor.resize, PERCENTILE]
    here = [extractor.device.type, torch.get_num_threads(), torch.__version__]
    name = hashlib.sha256(json.dumps(["memory", *made_of, *here]).encode()).hexdigest()[:32]
    radius = cached(pack.path.parent / "statistics" / f"{name}.cache", compute)["radius"]
    return Memory(train, float(radius[0]), PERCENTILE, len(test))


def memorised(samples: FeatureRows, memory: Memory, *, device: torch.device | str = "cpu") -> Memorised:
    """How many of ``samples`` [N, D] lie nearer to a training image than the yardstick says.

    The alarm is at twice the expected share, or, where that could be chance, at three standard deviations of the difference
    of two shares above it.
    """
    distance, index = nearest(samples, memory.train, 1, device=device)
    n, p = samples.shape[0], memory.percentile / 100
    by_chance = p + 3 * math.sqrt(p * (1 - p) * (1 / n + 1 / memory.held_out))
    order = distance[:, 0].argsort()[:SHOWN]
    closest = tuple((int(i), int(index[i, 0]), float(distance[i, 0])) for i in order)
    share = float((distance[:, 0] <= memory.radius).double().mean())
    return Memorised(share, max(2 * p, by_chance), closest)
