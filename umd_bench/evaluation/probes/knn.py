"""The k-nearest-neighbour probe: how much of the classes the geometry of a representation holds, without any training.

The protocol is DINO's (Caron et al., arXiv 2104.14294, after Wu et al., arXiv 1805.01978): cosine similarity, and each of the k
nearest training images votes for its class with weight ``exp(similarity / 0.07)``. Shapes: N training images, M test images,
D features, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from umd_bench.config.errors import UserError
from umd_bench.evaluation.probes.representation import Table

TEMPERATURE = 0.07
_TRAIN_ROWS, _TEST_ROWS = 8192, 2048  # compared at once: bounds the memory, whatever N and M


def knn_accuracies(
    train: Table,
    train_labels: Tensor,
    test: Table,
    test_labels: Tensor,
    *,
    classes: int,
    ks: Sequence[int],
    device: torch.device | str = "cpu",
) -> dict[int, float]:
    """For each number of neighbours the share of test images, in [0, 1], whose class has the most votes.

    Labels int64 [N] and [M] in 0..K-1. Of equal votes the lower class wins; which of several equally near images is the k-th
    is not defined. Raises :class:`UserError` where a k exceeds N.
    """
    if max(ks) > len(train_labels):
        raise UserError(f"k = {max(ks)} is not accepted: there are {len(train_labels)} training images to be neighbours")
    similarity, index = nearest(train, test, max(ks), device=device)
    weight, voter = (similarity.double() / TEMPERATURE).exp(), train_labels[index]
    right = {}
    for k in ks:
        votes = torch.zeros(len(voter), classes, dtype=torch.float64).scatter_add_(1, voter[:, :k], weight[:, :k])
        right[k] = float((votes.argmax(1) == test_labels).double().mean())
    return right


def nearest(train: Table, test: Table, k: int, *, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Cosine similarity [M, k] float32 and index [M, k] int64 of each test row's k nearest training rows, nearest first.

    In blocks: every training row is read once, and memory holds the test rows and k neighbours of each.
    """
    queries = [F.normalize(rows) for _, rows in _blocks(test, _TEST_ROWS, device)]
    best = [(rows.new_empty(len(rows), 0), rows.new_empty(len(rows), 0, dtype=torch.int64)) for rows in queries]
    for start, block in _blocks(train, _TRAIN_ROWS, device):
        candidates = F.normalize(block)
        for place, rows in enumerate(queries):
            near, at = (rows @ candidates.T).topk(min(k, len(candidates)), dim=1)
            known, known_at = best[place]
            merged, order = torch.cat([known, near], dim=1).topk(min(k, known.shape[1] + near.shape[1]), dim=1)
            best[place] = merged, torch.cat([known_at, at + start], dim=1).gather(1, order)
    return torch.cat([near for near, _ in best]).cpu(), torch.cat([at for _, at in best]).cpu()


def _blocks(table: Table, rows: int, device: torch.device | str) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, table.shape[0], rows):
        yield start, torch.from_numpy(np.array(table[start : start + rows])).to(device)
