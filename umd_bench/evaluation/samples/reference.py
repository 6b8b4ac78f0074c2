"""What samples are measured against: the statistics of real images, kept on disk, and the floor that real images reach.

    <data root>/statistics/<hash>.cache     one Gaussian or one floor (cache.py)
    <data root>/statistics/<hash>.npy       rows of features (rows.py): a reference's subset, or a whole split's

The name is the hash of all that the numbers depend on: the data's digest, the split, the extractor's hash and resizing, and
what changes the last bits (device kind, threads, torch version). A reference streams its split and keeps two moments and at
most 10,000 rows, whatever the split's length; only :func:`split_features`, which is asked for every row, keeps every row.
Shapes: N images, M rows kept, D features, S spatial features.
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
from umd_bench.data.packs.pack import Pack, data_root
from umd_bench.data.packs.sharded_array import ShardedArray
from umd_bench.evaluation.extractors.loading import Extractor, Features
from umd_bench.evaluation.extractors.registry import INCEPTION
from umd_bench.evaluation.extractors.weight_files import file_sha256
from umd_bench.evaluation.metrics.frechet import Gaussian, Moments, frechet_distance
from umd_bench.evaluation.samples.reference_file import open_published, published_gaussian, published_images
from umd_bench.evaluation.storage.arrays import Arrays, cached, read_cached
from umd_bench.evaluation.storage.rows import Rows, keep_rows, kept_rows

SUBSET = 10_000
_VERSION = 2  # goes up when the same images would give other numbers
_BATCH = 500
_FLOOR_DRAWS = 5


@dataclass(frozen=True)
class Reference:
    """What a set of samples is measured against.

    ``gaussian`` of the features [D], ``spatial`` of the spatial ones [S] where asked for; ``features`` float32 [M, D] of a
    fixed random subset of the images, all of them up to 10,000, for scores that need rows (None where a published file has
    none); ``label`` says it to people; ``n`` images are behind the Gaussian; ``hash`` is the SHA-256 of what it is made of,
    the same on every machine.
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
    """The reference that a whole split is, "train" or "test"; ``spatial`` adds the Gaussian of the spatial features.

    What is not kept yet is made in one pass over the images. Raises :class:`UserError` as :meth:`Extractor.features` does.
    """
    images = pack.split(split).images
    chosen = _subset(len(images))
    gaussian_path, spatial_path = (_path(pack, extractor, what, split) for what in ("gaussian", "spatial"))
    rows_path = _path(pack, extractor, "subset", split, len(chosen)).with_suffix(".npy")
    gaussian = _read_gaussian(gaussian_path)
    spatial_gaussian = _read_gaussian(spatial_path) if spatial else None
    rows = kept_rows(rows_path, (len(chosen), extractor.dim))
    if gaussian is None or rows is None or (spatial and spatial_gaussian is None):
        pooled, places, found = _Running(), _Running(), []
        for start, features in _features(pack, split, extractor, spatial=spatial and spatial_gaussian is None):
            pooled.add(features.pooled)
            if features.spatial is not None:
                places.add(features.spatial)
            found.append(_rows_of(chosen, start, features))
        gaussian = _kept_gaussian(gaussian_path, pooled)
        rows = keep_rows(rows_path, (len(chosen), extractor.dim), found) if rows is None else rows
        if places.moments is not None:
            spatial_gaussian = _kept_gaussian(spatial_path, places)
    made_of = json.dumps([_VERSION, pack.manifest.digest, split, extractor.hash, extractor.resize])
    return Reference(
        gaussian,
        spatial_gaussian,
        rows,
        label=f"{pack.manifest.name} {split}",
        n=len(images),
        hash=hashlib.sha256(made_of.encode()).hexdigest(),
    )


def reference_from_file(path: Path, extractor: Extractor) -> Reference:
    """The reference that a published file is (reference_file.py says which formats); its factors and features are kept too.

    ``n`` is 0 where nobody states how many images are behind it. Raises :class:`UserError` for an extractor other than the
    Inception-v3 that such files are of, and for a file that is damaged or of another kind.
    """
    if extractor.name != INCEPTION:
        raise UserError(f"{path} cannot be a reference for {extractor.name}: published statistics are of {INCEPTION}")
    file = open_published(path)
    digest = file_sha256(path)
    root = data_root() / "statistics"

    def kept(what: str, dim: int) -> Gaussian:
        def compute() -> Arrays:
            return _arrays_of(published_gaussian(file, dim, spatial=what == "spatial"))

        return _gaussian_of(cached(root / _name("published", digest, path.name, what, dim, *_here(extractor)), compute))

    gaussian = kept("gaussian", extractor.dim)
    spatial = kept("spatial", extractor.spatial_dim) if file.has_spatial and extractor.spatial_dim is not None else None
    rows = None
    if file.images is not None:
        chosen = _subset(file.images[0])
        name = _name("published", digest, "subset", extractor.hash, extractor.resize, len(chosen), *_here(extractor))
        rows_path, shape = (root / name).with_suffix(".npy"), (len(chosen), extractor.dim)
        rows = kept_rows(rows_path, shape)
        if rows is None:
            batches = ((i * _BATCH, extractor.features(x)) for i, x in enumerate(published_images(file, _BATCH)))
            rows = keep_rows(rows_path, shape, (_rows_of(chosen, start, features) for start, features in batches))
    return Reference(gaussian, spatial, rows, label=path.name, n=gaussian.count, hash=digest)


def split_features(pack: Pack, split: str, extractor: Extractor) -> Rows:
    """The features of every image of a split, in its order: float32 [N, D], memory-mapped, made once and kept.

    Memory does not grow with N; the disk holds 4 N D bytes. Raises :class:`UserError` as :meth:`Extractor.features` does,
    and where the disk is full.
    """
    images = pack.split(split).images
    path, shape = _rows_path(pack, split, extractor), (len(images), extractor.dim)
    rows = kept_rows(path, shape)
    if rows is None:
        rows = keep_rows(path, shape, (batch.pooled.numpy() for _, batch in _streamed(images, extractor)))
    return rows


def floor_distance(pack: Pack, split: str, n: int, extractor: Extractor) -> Floor:
    """How far from the reference ``split`` real images of the *other* split are: what perfect samples would score.

    Taken at the samples' own n, since a Fréchet distance falls with n; where the other split has fewer images, at all it
    has. Up to five disjoint sets are drawn, the same for every run.
    """
    images = pack.split("test" if split == "train" else "train").images
    n = min(n, len(images))
    draws = min(_FLOOR_DRAWS, len(images) // n)

    def compute() -> Arrays:
        reference = reference_of(pack, split, extractor).gaussian
        order = np.random.default_rng(derive_seed(0, "floor")).permutation(len(images))
        distances = []
        for i in range(draws):
            drawn = _Running()
            for _, features in _streamed(images, extractor, np.sort(order[i * n : (i + 1) * n])):
                drawn.add(features.pooled)
            distances.append(frechet_distance(drawn.gaussian(), reference))
        return {"distance": np.array(np.mean(distances))}

    path = _path(pack, extractor, "floor", split, n)
    return Floor(float(cached(path, compute)["distance"]), n, draws)


class _Running:
    """Moments that grow batch by batch."""

    def __init__(self) -> None:
        self.moments: Moments | None = None

    def add(self, features: torch.Tensor) -> None:
        part = Moments.of(features)
        self.moments = part if self.moments is None else self.moments.merged(part)

    def gaussian(self) -> Gaussian:
        assert self.moments is not None  # no split is empty
        return self.moments.gaussian()


def _features(pack: Pack, split: str, extractor: Extractor, *, spatial: bool) -> Iterator[tuple[int, Features]]:
    """The split's features in batches; read, where every row is kept already, instead of made again: the bits are the same."""
    images = pack.split(split).images
    rows = None if spatial else kept_rows(_rows_path(pack, split, extractor), (len(images), extractor.dim))
    if rows is None:
        yield from _streamed(images, extractor, spatial=spatial)
        return
    for start in range(0, len(rows), _BATCH):
        yield start, Features(torch.from_numpy(np.array(rows[start : start + _BATCH])), None, None)


def _streamed(
    images: NDArray[np.uint8] | ShardedArray,
    extractor: Extractor,
    chosen: NDArray[np.int64] | None = None,
    *,
    spatial: bool = False,
) -> Iterator[tuple[int, Features]]:
    """Batches of the ``chosen`` images, or of all; of one size whatever a stage's own, so that the bits are always the same."""
    n = len(images) if chosen is None else len(chosen)
    for start in range(0, n, _BATCH):
        stop = min(start + _BATCH, n)
        batch = images[start:stop] if chosen is None else images[chosen[start:stop]]
        yield start, extractor.features(torch.from_numpy(np.array(batch)), spatial=spatial)


def _subset(n: int) -> NDArray[np.int64]:
    """Which of a split's n images are kept as rows, in order: all of them up to SUBSET, else the same ones for ever."""
    if n <= SUBSET:
        return np.arange(n)
    return np.sort(np.random.default_rng(derive_seed(0, "reference/subset")).permutation(n)[:SUBSET])


def _rows_of(chosen: NDArray[np.int64], start: int, features: Features) -> Rows:
    """The rows of a batch that starts at image ``start`` whose images are among the chosen."""
    rows: Rows = features.pooled.numpy()
    return rows[chosen[(chosen >= start) & (chosen < start + len(rows))] - start]


def _kept_gaussian(path: Path, running: _Running) -> Gaussian:
    return _gaussian_of(cached(path, lambda: _arrays_of(running.gaussian())))


def _read_gaussian(path: Path) -> Gaussian | None:
    arrays = read_cached(path)
    return None if arrays is None else _gaussian_of(arrays)


def _arrays_of(gaussian: Gaussian) -> Arrays:
    return {"count": np.array(float(gaussian.count)), "mean": gaussian.mean.numpy(), "factor": gaussian.factor.numpy()}


def _gaussian_of(arrays: Arrays) -> Gaussian:
    return Gaussian(int(arrays["count"]), torch.from_numpy(arrays["mean"]), torch.from_numpy(arrays["factor"]))


def _rows_path(pack: Pack, split: str, extractor: Extractor) -> Path:
    return _path(pack, extractor, "features", split).with_suffix(".npy")


def _path(pack: Pack, extractor: Extractor, *what: str | int) -> Path:
    made_of = (pack.manifest.digest, extractor.name, extractor.hash, extractor.resize)
    return pack.path.parent / "statistics" / _name(*made_of, *_here(extractor), *what)


def _here(extractor: Extractor) -> tuple[str | int, ...]:
    """What changes the last bits."""
    return extractor.device.type, torch.get_num_threads(), torch.__version__


def _name(*made_of: str | int) -> str:
    return f"{hashlib.sha256(json.dumps([_VERSION, *made_of]).encode()).hexdigest()[:32]}.cache"
