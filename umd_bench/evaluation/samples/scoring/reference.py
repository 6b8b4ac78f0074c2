"""References: statistics of real images that samples are compared with, and the floor, which is the score of real images.

    <data root>/statistics/<hash>.cache     one Gaussian or one floor (storage/arrays.py)
    <data root>/statistics/<hash>.npy       rows of features (storage/rows.py): a reference's subset, or a whole split's

The hash covers everything that the numbers depend on: the data's digest, the split, the extractor's weights and resizing, and
the environment that changes the last bits (device kind, threads, torch version). A reference streams its split and keeps two
Gaussians and at most 10,000 rows, however long the split is. Only :func:`split_features` keeps every row.

Shapes: N images, M rows of a subset, D features, S spatial features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.data.packs.manifest import data_root
from umd_bench.data.packs.pack import Pack
from umd_bench.data.packs.sharded_array import ShardedArray
from umd_bench.evaluation.extractors.contract import INCEPTION, Extractor, Features
from umd_bench.evaluation.extractors.weight_files import file_sha256
from umd_bench.evaluation.metrics.frechet import Gaussian, RunningMoments, frechet_distance
from umd_bench.evaluation.samples.scoring.reference_file import open_published, published_gaussian, published_images
from umd_bench.evaluation.storage.arrays import Arrays, load_arrays, load_or_compute
from umd_bench.evaluation.storage.cache_names import cache_name, numeric_environment
from umd_bench.evaluation.storage.rows import Rows, load_rows, save_rows

SUBSET = 10_000
_VERSION = 2  # goes up when the same images would give other numbers
_BATCH = 500
_FLOOR_DRAWS = 5


@dataclass(frozen=True)
class Reference:
    """Statistics of the real images that a set of samples is compared with.

    ``gaussian`` is of the features [D]; ``spatial`` is of the spatial features [S], None if no score needs it. ``features``
    float32 [M, D] are the features of 10,000 images, a fixed random choice, or of all images if there are fewer. They are
    None for a published file without images. ``label`` is the reference's name for people; ``n`` is the number of images behind
    the Gaussian, 0 if unknown. ``hash`` is the SHA-256 of the reference's inputs, the same on every machine.
    """

    gaussian: Gaussian
    spatial: Gaussian | None
    features: Rows | None
    label: str
    n: int
    hash: str


@dataclass(frozen=True)
class Floor:
    """The Fréchet distance of real images to the reference: the mean over ``draws`` disjoint sets of ``n`` images."""

    distance: float
    n: int
    draws: int


def reference_of(pack: Pack, split: str, extractor: Extractor, *, spatial: bool = False) -> Reference:
    """The reference of a whole split, "train", "validation" or "test"; ``spatial`` adds the Gaussian of the spatial features.

    One pass over the images computes all parts that are not cached yet. Raises :class:`UserError` as
    :meth:`Extractor.features`.
    """
    images = pack.split(split).images
    chosen = _subset(len(images))
    gaussian_path, spatial_path = (_path(pack, extractor, part, split) for part in ("gaussian", "spatial"))
    rows_path = _path(pack, extractor, "subset", split, len(chosen)).with_suffix(".npy")
    gaussian = _load_gaussian(gaussian_path)
    spatial_gaussian = _load_gaussian(spatial_path) if spatial else None
    rows = load_rows(rows_path, (len(chosen), extractor.dim))
    if gaussian is None or rows is None or (spatial and spatial_gaussian is None):
        pooled, by_position, parts = RunningMoments(), RunningMoments(), []
        for start, features in _features(pack, split, extractor, spatial=spatial and spatial_gaussian is None):
            pooled.add(features.pooled)
            if features.spatial is not None:
                by_position.add(features.spatial)
            parts.append(_chosen_rows(chosen, start, features))
        gaussian = _cached_gaussian(gaussian_path, pooled)
        rows = save_rows(rows_path, (len(chosen), extractor.dim), parts) if rows is None else rows
        if by_position.moments is not None:
            spatial_gaussian = _cached_gaussian(spatial_path, by_position)
    inputs = json.dumps([_VERSION, pack.manifest.digest, split, extractor.hash, extractor.resize])
    return Reference(
        gaussian,
        spatial_gaussian,
        rows,
        label=f"{pack.manifest.name} {split}",
        n=len(images),
        hash=hashlib.sha256(inputs.encode()).hexdigest(),
    )


def reference_from_file(path: Path, extractor: Extractor) -> Reference:
    """The reference in a published file (reference_file.py describes the formats); factors and features are cached.

    Raises :class:`UserError` if the extractor is not Inception-v3, since such files hold its statistics, and if the file is
    damaged or has another format.
    """
    if extractor.name != INCEPTION:
        raise UserError(f"{path} cannot be a reference for {extractor.name}: published statistics are of {INCEPTION}")
    file = open_published(path)
    digest = file_sha256(path)
    root = data_root() / "statistics"

    def cached(part: str, dim: int) -> Gaussian:
        def compute() -> Arrays:
            return _to_arrays(published_gaussian(file, dim, spatial=part == "spatial"))

        name = _file_name("published", digest, path.name, part, dim, *numeric_environment(extractor.device))
        return _to_gaussian(load_or_compute(root / name, compute))

    gaussian = cached("gaussian", extractor.dim)
    spatial = cached("spatial", extractor.spatial_dim) if file.has_spatial and extractor.spatial_dim is not None else None
    rows = None
    if file.images is not None:
        chosen = _subset(file.images[0])
        inputs = ("published", digest, "subset", extractor.hash, extractor.resize, len(chosen))
        name = _file_name(*inputs, *numeric_environment(extractor.device))
        rows_path, shape = (root / name).with_suffix(".npy"), (len(chosen), extractor.dim)
        rows = load_rows(rows_path, shape)
        if rows is None:
            batches = ((i * _BATCH, extractor.features(x)) for i, x in enumerate(published_images(file, _BATCH)))
            rows = save_rows(rows_path, shape, (_chosen_rows(chosen, start, features) for start, features in batches))
    return Reference(gaussian, spatial, rows, label=path.name, n=gaussian.count, hash=digest)


def split_features(pack: Pack, split: str, extractor: Extractor) -> Rows:
    """The features of every image of a split, in its order: float32 [N, D], memory-mapped, computed once.

    They take 4 N D bytes on disk, and memory does not grow with N. Raises :class:`UserError` as :meth:`Extractor.features`, and
    if the disk is full.
    """
    images = pack.split(split).images
    path, shape = _rows_path(pack, split, extractor), (len(images), extractor.dim)
    rows = load_rows(path, shape)
    if rows is None:
        rows = save_rows(path, shape, (batch.pooled.numpy() for _, batch in _extracted(images, extractor)))
    return rows


def floor_distance(pack: Pack, split: str, n: int, extractor: Extractor, *, real: str) -> Floor:
    """The distance of the real images in the split ``real`` to the reference ``split``: the score of perfect samples.

    The sets are as large as the samples' n, because a Fréchet distance falls with n, but no larger than the split ``real``. Up
    to five disjoint sets are drawn, the same for every run.
    """
    images = pack.split(real).images
    n = min(n, len(images))
    draws = min(_FLOOR_DRAWS, len(images) // n)

    def compute() -> Arrays:
        reference = reference_of(pack, split, extractor).gaussian
        order = np.random.default_rng(derive_seed(0, "floor")).permutation(len(images))
        distances = []
        for i in range(draws):
            running = RunningMoments()
            for _, features in _extracted(images, extractor, np.sort(order[i * n : (i + 1) * n])):
                running.add(features.pooled)
            distances.append(frechet_distance(running.gaussian(), reference))
        return {"distance": np.array(np.mean(distances))}

    path = _path(pack, extractor, "floor", split, real, n)
    return Floor(float(load_or_compute(path, compute)["distance"]), n, draws)


def _features(pack: Pack, split: str, extractor: Extractor, *, spatial: bool) -> Iterator[tuple[int, Features]]:
    """``(first image, features)`` of each batch of the split, from the cached rows of :func:`split_features` if they exist.

    Cached rows have the same bits as new ones, but no spatial features.
    """
    images = pack.split(split).images
    rows = None if spatial else load_rows(_rows_path(pack, split, extractor), (len(images), extractor.dim))
    if rows is None:
        yield from _extracted(images, extractor, spatial=spatial)
        return
    for start in range(0, len(rows), _BATCH):
        yield start, Features(torch.from_numpy(np.array(rows[start : start + _BATCH])), None, None)


def _extracted(
    images: NDArray[np.uint8] | ShardedArray,
    extractor: Extractor,
    chosen: NDArray[np.int64] | None = None,
    *,
    spatial: bool = False,
) -> Iterator[tuple[int, Features]]:
    """``(start, features)`` of each batch of the ``chosen`` images, or of all.

    The batch size is fixed, so that the bits do not depend on a stage's own batch size.
    """
    n = len(images) if chosen is None else len(chosen)
    for start in range(0, n, _BATCH):
        stop = min(start + _BATCH, n)
        batch = images[start:stop] if chosen is None else images[chosen[start:stop]]
        yield start, extractor.features(torch.from_numpy(np.array(batch)), spatial=spatial)


def _subset(n: int) -> NDArray[np.int64]:
    """Which of n images a reference keeps rows of, ascending: all up to SUBSET, else always the same random ones."""
    if n <= SUBSET:
        return np.arange(n)
    return np.sort(np.random.default_rng(derive_seed(0, "reference/subset")).permutation(n)[:SUBSET])


def _chosen_rows(chosen: NDArray[np.int64], start: int, features: Features) -> Rows:
    """The features of a batch's chosen images; the batch begins with image ``start``."""
    rows: Rows = features.pooled.numpy()
    return rows[chosen[(chosen >= start) & (chosen < start + len(rows))] - start]


def _cached_gaussian(path: Path, running: RunningMoments) -> Gaussian:
    return _to_gaussian(load_or_compute(path, lambda: _to_arrays(running.gaussian())))


def _load_gaussian(path: Path) -> Gaussian | None:
    arrays = load_arrays(path)
    return None if arrays is None else _to_gaussian(arrays)


def _to_arrays(gaussian: Gaussian) -> Arrays:
    return {"count": np.array(float(gaussian.count)), "mean": gaussian.mean.numpy(), "factor": gaussian.factor.numpy()}


def _to_gaussian(arrays: Arrays) -> Gaussian:
    return Gaussian(int(arrays["count"]), torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["factor"]))


def _rows_path(pack: Pack, split: str, extractor: Extractor) -> Path:
    return _path(pack, extractor, "features", split).with_suffix(".npy")


def _path(pack: Pack, extractor: Extractor, *part: str | int) -> Path:
    inputs = (pack.manifest.digest, extractor.name, extractor.hash, extractor.resize)
    return pack.path.parent / "statistics" / _file_name(*inputs, *numeric_environment(extractor.device), *part)


def _file_name(*inputs: str | int) -> str:
    return f"{cache_name([_VERSION, *inputs])}.cache"
