"""FID infinity: a Fréchet distance extrapolated to infinitely many samples.

A distance between n samples and a reference is too large by about c / n. As c differs between models, the distances at one n
can rank two models in the wrong order (Chong and Forsyth, arXiv 1911.07023). A line is fitted to the distances at several n
as a function of 1/n: its slope estimates c, and its value at 1/n = 0 estimates the unbiased distance. This estimate is noisier
than the distance at one n, so the two are reported together. The bias from the reference's own number of images remains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from umd_bench.config.seeds import derive_seed
from umd_bench.evaluation.metrics.frechet import Gaussian, RunningMoments, frechet_distance
from umd_bench.evaluation.storage.rows import FeatureRows

POINTS = 5
_BLOCK = 2048


@dataclass(frozen=True)
class Extrapolation:
    """``distances`` at the numbers of samples ``n``, and the least-squares line ``intercept + slope / n`` through them."""

    intercept: float
    slope: float
    n: tuple[int, ...]
    distances: tuple[float, ...]


def extrapolate(features: FeatureRows, reference: Gaussian, *, points: int = POINTS) -> Extrapolation:
    """The distances of ``features`` [N, D] to ``reference`` at ``points`` equally spaced n from N / 3 to N.

    Each n has its own subset, the same in every call. n starts at N / 3, because distances at n well below D bend away from
    the line. Distances are in squared units of the features; the intercept can be negative. Raises as :func:`gaussian_of`.
    """
    N = features.shape[0]
    sizes = tuple(dict.fromkeys(int(n) for n in np.linspace(max(N // 3, 2), N, points).round()))
    distances = []
    for n in sizes:
        index = np.random.default_rng(derive_seed(0, "extrapolation", n)).permutation(N)[:n]
        distances.append(frechet_distance(gaussian_of(features, np.sort(index)), reference))
    if len(sizes) == 1:
        return Extrapolation(distances[0], 0.0, sizes, tuple(distances))
    slope, intercept = np.polyfit(1 / np.array(sizes), np.array(distances), 1)
    return Extrapolation(float(intercept), float(slope), sizes, tuple(distances))


def gaussian_of(features: FeatureRows, index: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Gaussian:
    """The Gaussian of the rows ``index`` [n] of ``features`` [N, D], read in blocks. Raises :class:`UserError` for n < 2."""
    running = RunningMoments()
    for start in range(0, len(index), _BLOCK):
        running.add(torch.from_numpy(np.array(features[index[start : start + _BLOCK]])))
    return running.gaussian()
