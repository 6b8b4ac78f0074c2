"""The linear probe: BatchNorm without affine, then a dense layer, trained by LARS at many learning rates at once.

This is the protocol of MAE's linear probing (He et al., arXiv 2111.06377, appendix A.1), but on features that are computed
once, so without crops and flips. The features and their BatchNorm do not depend on the learning rate, so all heads share them
and train together in one matrix product. The rate is chosen on images held out of the train split, never on the test split.
A new head is then trained at that rate on all training images, and scored on the test split.

Shapes: N images, B batch, D features, K classes, L heads (learning rates).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from umd_bench.config.errors import UserError
from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.probe_stage import LinearConfig
from umd_bench.evaluation.storage.rows import FeatureRows, Index

TRUST = 1e-3  # of LARS (You et al., arXiv 1708.03888)
_NORM_EPS = 1e-6
_INIT_STD = 0.01
_RESIDENT_BYTES = 4 << 30  # features up to this size are copied to the device
_ROWS = 4096  # rows scored at once


@dataclass(frozen=True)
class LinearResult:
    """``accuracy`` on the test split, in [0, 1], at the chosen rate ``lr`` (for a batch of 256).

    ``held_out`` are the accuracies of all rates ``lrs`` on held-out training images, empty if there was only one rate.
    """

    accuracy: float
    lr: float
    lrs: tuple[float, ...]
    held_out: tuple[float, ...]

    @property
    def at_edge(self) -> bool:
        """Whether the rate is the smallest or largest of several, so that a better one may lie outside their range."""
        return len(self.lrs) > 1 and self.lr in (min(self.lrs), max(self.lrs))


def linear_probe(
    train: FeatureRows,
    train_labels: NDArray[np.int64],
    test: FeatureRows,
    test_labels: NDArray[np.int64],
    *,
    classes: int,
    config: LinearConfig,
    seed: int,
    device: torch.device | str = "cpu",
) -> LinearResult:
    """Choose the learning rate on held-out training images, train with it on all training images, and score the test split.

    Labels are in 0..K-1. Of equally accurate rates the smallest is chosen. Raises :class:`UserError` if no class has a second
    image to hold out, and if the last training, at the chosen rate, ends in weights that are not finite.
    """
    everything = np.arange(len(train_labels))
    lr, held_out = config.lr_per_256[0], tuple[float, ...]()
    if len(config.lr_per_256) > 1:
        fit_rows, held_out_rows = split_held_out(train_labels, config.held_out, seed)
        heads = train_heads(train, fit_rows, train_labels, classes=classes, config=config, seed=seed, device=device)
        held_out = heads.accuracies(train, held_out_rows, train_labels)
        lr = max(zip(held_out, config.lr_per_256, strict=True), key=lambda pair: (pair[0], -pair[1]))[1]
    alone = config.model_copy(update={"lr_per_256": (lr,)})
    final = train_heads(train, everything, train_labels, classes=classes, config=alone, seed=seed, device=device)
    if not final.weights.isfinite().all():
        raise UserError(f"the linear probe ends in NaN at lr_per_256 = {lr:g}: give smaller rates there")
    accuracy = final.accuracies(test, np.arange(len(test_labels)), test_labels)[0]
    return LinearResult(accuracy, lr, config.lr_per_256, held_out)


class Heads:
    """L dense layers behind one BatchNorm: ``weights`` [D, L, K], ``bias`` [L, K]."""

    def __init__(self, norm: nn.BatchNorm1d, weights: Tensor, bias: Tensor) -> None:
        self.norm, self.weights, self.bias = norm, weights, bias

    def logits(self, x: Tensor) -> Tensor:
        """[B, D] -> [B, L, K]."""
        D, L, K = self.weights.shape
        return torch.addmm(self.bias.flatten(), self.norm(x), self.weights.view(D, L * K)).view(-1, L, K)

    @torch.inference_mode()
    def accuracies(self, features: FeatureRows, index: Index, labels: NDArray[np.int64]) -> tuple[float, ...]:
        """Each head's accuracy on the rows ``index`` [B], in [0, 1]; 0 for a head whose weights are not finite."""
        self.norm.eval()
        correct = torch.zeros(self.bias.shape[0], dtype=torch.int64)
        for rows in np.split(index, range(_ROWS, len(index), _ROWS)):
            x = torch.from_numpy(np.array(features[rows])).to(self.bias.device)
            y = torch.from_numpy(labels[rows]).to(self.bias.device)
            correct += (self.logits(x).argmax(2) == y.unsqueeze(1)).sum(0).cpu()
        finite = (self.weights.isfinite().all(0) & self.bias.isfinite()).all(1).cpu()
        return tuple(((correct * finite).double() / len(index)).tolist())


@torch.no_grad()
def train_heads(
    features: FeatureRows,
    index: Index,
    labels: NDArray[np.int64],
    *,
    classes: int,
    config: LinearConfig,
    seed: int,
    device: torch.device | str = "cpu",
) -> Heads:
    """One head for each learning rate of ``config``, trained together on the rows ``index`` [N] of ``features``.

    All heads start from the same weights and see the same batches; an incomplete last batch of an epoch is dropped. The rate
    rises linearly from 0 during the warm-up, then falls to 0 by a cosine. LARS: ``u = g + wd w``,
    ``m = momentum m + (trust |w| / |u|) u``, ``w -= lr m``. The bias is neither decayed nor scaled.
    """
    N, D, L = len(index), features.shape[1], len(config.lr_per_256)
    B = min(config.batch, N)
    if B < 2:
        raise UserError(f"a linear probe of {N} training images is not accepted: expected at least 2")
    resident = torch.from_numpy(np.array(features[index])).to(device) if N * D * 4 <= _RESIDENT_BYTES else None
    targets = torch.from_numpy(labels[index]).to(device)
    heads = _untrained(D, L, classes, seed, device)
    W, b = heads.weights.view(D, L * classes), heads.bias
    m_W, m_b = torch.zeros_like(W), torch.zeros_like(b)
    peak = torch.tensor(config.lr_per_256, device=device) * (B / 256)
    steps = N // B
    for epoch in range(config.epochs):
        order = np.random.default_rng(derive_seed(seed, "probe/linear/order", epoch)).permutation(N)
        for step in range(steps):
            rows = order[step * B : (step + 1) * B]
            at = torch.from_numpy(rows).to(device)
            if resident is None:
                x = torch.from_numpy(np.array(features[index[rows]])).to(device)
            else:
                x = resident.index_select(0, at)
            z = heads.norm(x)
            # The gradient of the mean cross-entropy: (softmax - one-hot target) / B.
            g = torch.addmm(b.flatten(), z, W).view(B, L, classes).softmax(2)
            g = g.sub_(F.one_hot(targets.index_select(0, at), classes).unsqueeze(1)).div_(B)
            u_W, u_b = torch.addmm(W, z.T, g.view(B, -1), beta=config.weight_decay), g.sum(0)
            w_norm, u_norm = _norms(W, L), _norms(u_W, L)
            trust = torch.where((w_norm > 0) & (u_norm > 0), TRUST * w_norm / u_norm, 1.0)
            lr = peak * _schedule(epoch + step / steps, config)
            m_W.mul_(config.momentum).add_(u_W.mul_(trust.repeat_interleave(classes)))
            m_b.mul_(config.momentum).add_(u_b)
            W.sub_(m_W * lr.repeat_interleave(classes))
            b.sub_(m_b * lr.unsqueeze(1))
    return heads


def split_held_out(labels: NDArray[np.int64], share: float, seed: int) -> tuple[Index, Index]:
    """Rows to train on, and held-out rows: ``share`` of each class, and at least one of each class that has two images."""
    rng = np.random.default_rng(derive_seed(seed, "probe/linear/held_out"))
    parts = []
    for label in range(int(labels.max()) + 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        parts.append(rows[: max(1, round(share * len(rows)))] if len(rows) > 1 else rows[:0])
    held_out = np.sort(np.concatenate(parts))
    if not len(held_out):
        raise UserError(
            "no class has two training images, so none can be held out to choose a learning rate: give one in lr_per_256"
        )
    return np.setdiff1d(np.arange(len(labels)), held_out), held_out


def _untrained(D: int, L: int, K: int, seed: int, device: torch.device | str) -> Heads:
    """Heads with the same random weights, of standard deviation 0.01, and zero biases."""
    first = np.random.default_rng(derive_seed(seed, "probe/linear/weights")).standard_normal((D, 1, K), dtype=np.float32)
    weights = torch.from_numpy(first * np.float32(_INIT_STD)).expand(D, L, K).contiguous().to(device)
    norm = nn.BatchNorm1d(D, eps=_NORM_EPS, affine=False).to(device)
    return Heads(norm, weights, torch.zeros(L, K, device=device))


def _schedule(epoch: float, config: LinearConfig) -> float:
    """The learning rate after ``epoch`` epochs, as a share of its peak."""
    if epoch < config.warmup_epochs:
        return epoch / config.warmup_epochs
    return 0.5 * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / (config.epochs - config.warmup_epochs)))


def _norms(matrix: Tensor, L: int) -> Tensor:
    """The norm [L] of each head's part of a [D, L * K] matrix."""
    return matrix.square().sum(0).view(L, -1).sum(1).sqrt()
