"""What samples are measured against: the statistics of real images, kept on disk, and the floor that real images reach.

    <data root>/statistics/<hash>.cache     one Gaussian or one floor (cache.py)

The name is the hash of all that the numbers depend on: the data's digest, the extractor's hash, the split, and what changes the
last bits (device kind, threads, torch version).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from umd_bench.config.randomness import derive_seed
from umd_bench.data.pack import Pack
from umd_bench.data.shards import ShardedArray
from umd_bench.evaluation.cache import Arrays, cached
from umd_bench.evaluation.extractors import Extractor
from umd_bench.evaluation.statistics import Gaussian, Moments, frechet_distance

_VERSION = 1  # goes up when the same images would give other numbers
_BATCH = 500
_FLOOR_DRAWS = 5


@dataclass(frozen=True)
class Floor:
    """The Fréchet distance of real images to the reference: the mean over ``draws`` disjoint sets of ``n`` images."""

    distance: float
    n: int
    draws: int


def reference_gaussian(pack: Pack, split: str, extractor: Extractor) -> Gaussian:
    """The Gaussian of the features of a whole split, "train" or "test"."""

    def compute() -> Arrays:
        gaussian = _gaussian(pack.split(split).images, extractor)
        return {"count": np.array(float(gaussian.count)), "mean": gaussian.mean.numpy(), "factor": gaussian.factor.numpy()}

    arrays = cached(_path(pack, extractor, "gaussian", split), compute)
    return Gaussian(int(arrays["count"]), torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["factor"]))


def floor_distance(pack: Pack, split: str, n: int, extractor: Extractor) -> Floor:
    """How far from the reference ``split`` real images of the *other* split are: what perfect samples would score.

    Taken at the samples' own n, since a Fréchet distance falls with n; where the other split has fewer images, at all it
    has. Up to five disjoint sets are drawn, the same for every run.
    """
    images = pack.split("test" if split == "train" else "train").images
    n = min(n, len(images))
    draws = min(_FLOOR_DRAWS, len(images) // n)

    def compute() -> Arrays:
        reference = reference_gaussian(pack, split, extractor)
        order = np.random.default_rng(derive_seed(0, "floor")).permutation(len(images))
        sets = [np.sort(order[i * n : (i + 1) * n]) for i in range(draws)]
        return {"distance": np.array(np.mean([frechet_distance(_gaussian(images[s], extractor), reference) for s in sets]))}

    path = _path(pack, extractor, "floor", split, n)
    return Floor(float(cached(path, compute)["distance"]), n, draws)


def _gaussian(images: NDArray[np.uint8] | ShardedArray, extractor: Extractor) -> Gaussian:
    """Streamed in batches of one size, whatever a stage's own, so that the bits are always the same."""
    moments: Moments | None = None
    for start in range(0, len(images), _BATCH):
        features, _ = extractor.features(torch.from_numpy(np.array(images[start : start + _BATCH])))
        part = Moments.of(features)
        moments = part if moments is None else moments.merged(part)
    assert moments is not None  # no split is empty
    return moments.gaussian()


def _path(pack: Pack, extractor: Extractor, *what: str | int) -> Path:
    here = (extractor.device.type, torch.get_num_threads(), torch.__version__)
    text = json.dumps([_VERSION, pack.manifest.digest, extractor.name, extractor.hash, *here, *what])
    return pack.path.parent / "statistics" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.cache"
