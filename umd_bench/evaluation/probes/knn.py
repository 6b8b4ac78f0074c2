"""The k-nearest-neighbour probe: how well the geometry of a representation separates the classes, without any training.

The protocol is DINO's (Caron et al., arXiv 2104.14294, after Wu et al., arXiv 1805.01978): cosine similarity, and each of the k
nearest training images votes for its class with weight ``exp(similarity / 0.07)``.

Shapes: N training images, M test images, D features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.storage.rows import FeatureRows

TEMPERATURE = 0.07
_TRAIN_ROWS, _TEST_ROWS = 8192, 2048  # compared at once, so that memory does not grow with N


def knn_accuracies(
    train: FeatureRows,
    train_labels: Tensor,
    test: FeatureRows,
    test_labels: Tensor,
    *,
    classes: int,
    ks: Sequence[int],
    device: torch.device | str = "cpu",
) -> dict[int, float]:
    """For each k in ``ks`` the share of test images, in [0, 1], whose class has the most votes.

    Labels are int64 [N] and [M] in 0..K-1. If votes are equal, the lower class wins. If several images are equally near, it is
    undefined which is the k-th. Raises :class:`UserError` if a k exceeds N.
    """
    if max(ks) > len(train_labels):
        raise UserError(f"k = {max(ks)} is not accepted: there are {len(train_labels)} training images")
    similarity, index = cosine_neighbours(train, test, max(ks), device=device)
    weight, voter = (similarity.double() / TEMPERATURE).exp(), train_labels[index]
    accuracies = {}
    for k in ks:
        votes = torch.zeros(len(voter), classes, dtype=torch.float64).scatter_add_(1, voter[:, :k], weight[:, :k])
        accuracies[k] = float((votes.argmax(1) == test_labels).double().mean())
    return accuracies


def cosine_neighbours(
    train: FeatureRows, test: FeatureRows, k: int, *, device: torch.device | str = "cpu"
) -> tuple[Tensor, Tensor]:
    """Cosine similarity float32 [M, k] and index int64 [M, k] of each test row's k nearest training rows, nearest first.

    Training rows are read once, in blocks. Memory holds one block, the test rows, and k neighbours of each test row.
    """
    queries = [F.normalize(rows) for _, rows in _blocks(test, _TEST_ROWS, device)]
    best = [(rows.new_empty(len(rows), 0), rows.new_empty(len(rows), 0, dtype=torch.int64)) for rows in queries]
    for start, block in _blocks(train, _TRAIN_ROWS, device):
        candidates = F.normalize(block)
        for i, rows in enumerate(queries):
            near, index = (rows @ candidates.T).topk(min(k, len(candidates)), dim=1)
            best_near, best_index = best[i]
            merged, order = torch.cat([best_near, near], dim=1).topk(min(k, best_near.shape[1] + near.shape[1]), dim=1)
            best[i] = merged, torch.cat([best_index, index + start], dim=1).gather(1, order)
    return torch.cat([near for near, _ in best]).cpu(), torch.cat([index for _, index in best]).cpu()


def _blocks(features: FeatureRows, rows: int, device: torch.device | str) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, features.shape[0], rows):
        yield start, torch.from_numpy(np.array(features[start : start + rows])).to(device)
