"""The linear probe: BatchNorm without affine, then a dense layer, trained by LARS at many learning rates at once.

The protocol of MAE's linear probing (He et al., arXiv 2111.06377, appendix A.1) on features that are made once, so without its
crops and flips. The features and their BatchNorm do not depend on the learning rate, so all heads share them and one matrix
product: a head costs its share of the product, not a training of its own. The rate is chosen on images held out of the train
split, never on the test split, and the head that is scored is trained anew at that rate on all training images.

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
from umd_bench.evaluation.probes.representation import Index, Table

TRUST = 1e-3  # of LARS (You et al., arXiv 1708.03888)
_NORM_EPS = 1e-6
_INIT_STD = 0.01
_RESIDENT_BYTES = 4 << 30  # features up to this size are copied to the device
_ROWS = 4096  # scored at once


@dataclass(frozen=True)
class LinearResult:
    """``accuracy`` on the test split; ``lr`` (for a batch of 256) among ``lrs``, whose accuracies on held-out training images
    are ``held_out`` (empty where there was no choice)."""

    accuracy: float
    lr: float
    lrs: tuple[float, ...]
    held_out: tuple[float, ...]

    @property
    def at_edge(self) -> bool:
        """Whether the rate is the smallest or largest of several, so that a better one may lie outside."""
        return len(self.lrs) > 1 and self.lr in (min(self.lrs), max(self.lrs))


def linear_probe(
    train: Table,
    train_labels: NDArray[np.int64],
    test: Table,
    test_labels: NDArray[np.int64],
    *,
    classes: int,
    config: LinearConfig,
    seed: int,
    device: torch.device | str = "cpu",
) -> LinearResult:
    """Choose the learning rate on held-out training images, train at it on all of them, score the test split.

    Labels in 0..K-1. Of equally accurate rates the smallest is taken. Raises :class:`UserError` where no class has a second
    image to hold out, and where every rate ends in numbers that are not finite.
    """
    everything = np.arange(len(train_labels))
    lr, held_out = config.lr_per_256[0], tuple[float, ...]()
    if len(config.lr_per_256) > 1:
        fit, held = split_held_out(train_labels, config.held_out, seed)
        heads = train_heads(train, fit, train_labels, classes=classes, config=config, seed=seed, device=device)
        held_out = heads.accuracies(train, held, train_labels)
        lr = max(zip(held_out, config.lr_per_256, strict=True), key=lambda found: (found[0], -found[1]))[1]
    alone = config.model_copy(update={"lr_per_256": (lr,)})
    final = train_heads(train, everything, train_labels, classes=classes, config=alone, seed=seed, device=device)
    if not final.weights.isfinite().all():
        raise UserError(f"the linear probe ends in NaN at a learning rate of {lr:g} for 256: give smaller ones in lr_per_256")
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
    def accuracies(self, table: Table, index: Index, labels: NDArray[np.int64]) -> tuple[float, ...]:
        """Each head's share of the rows ``index`` named rightly; 0 for a head whose weights are not finite."""
        self.norm.eval()
        right = torch.zeros(self.bias.shape[0], dtype=torch.int64)
        for rows in np.split(index, range(_ROWS, len(index), _ROWS)):
            x = torch.from_numpy(np.array(table[rows])).to(self.bias.device)
            y = torch.from_numpy(labels[rows]).to(self.bias.device)
            right += (self.logits(x).argmax(2) == y.unsqueeze(1)).sum(0).cpu()
        finite = (self.weights.isfinite().all(0) & self.bias.isfinite()).all(1).cpu()
        return tuple(((right * finite).double() / len(index)).tolist())


@torch.no_grad()
def train_heads(
    table: Table,
    index: Index,
    labels: NDArray[np.int64],
    *,
    classes: int,
    config: LinearConfig,
    seed: int,
    device: torch.device | str = "cpu",
) -> Heads:
    """One head a learning rate of ``config``, trained together on the rows ``index`` of ``table``.

    All heads start from the same weights and see the same batches; a batch that the epoch does not fill is dropped. The rate
    rises from 0 over the warm-up and falls to 0 by a cosine, step by step. LARS scales the update of the weights, not of the
    bias, which is not decayed either: ``u = g + wd w``, ``m = momentum m + (trust |w| / |u|) u``, ``w -= lr m``.
    """
    N, D, L = len(index), table.shape[1], len(config.lr_per_256)
    B = min(config.batch, N)
    if B < 2:
        raise UserError(f"a linear probe of {N} training images is not accepted: expected at least 2")
    resident = torch.from_numpy(np.array(table[index])).to(device) if N * D * 4 <= _RESIDENT_BYTES else None
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
            x = torch.from_numpy(np.array(table[index[rows]])).to(device) if resident is None else resident.index_select(0, at)
            z = heads.norm(x)
            # The gradient of the mean cross-entropy: softmax less the one-hot target, over B.
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
    """Rows to fit on and rows held out: ``share`` of each class, at least one of each class that has two."""
    rng = np.random.default_rng(derive_seed(seed, "probe/linear/held_out"))
    held = []
    for label in range(int(labels.max()) + 1):
        rows = rng.permutation(np.flatnonzero(labels == label))
        held.append(rows[: max(1, round(share * len(rows)))] if len(rows) > 1 else rows[:0])
    out = np.sort(np.concatenate(held))
    if not len(out):
        raise UserError("a learning rate cannot be chosen where no class has two training images: give one in lr_per_256")
    return np.setdiff1d(np.arange(len(labels)), out), out


def _untrained(D: int, L: int, K: int, seed: int, device: torch.device | str) -> Heads:
    """Weights N(0, 0.01), the same for all heads; biases 0."""
    first = np.random.default_rng(derive_seed(seed, "probe/linear/weights")).standard_normal((D, 1, K), dtype=np.float32)
    weights = torch.from_numpy(first * np.float32(_INIT_STD)).expand(D, L, K).contiguous().to(device)
    norm = nn.BatchNorm1d(D, eps=_NORM_EPS, affine=False).to(device)
    return Heads(norm, weights, torch.zeros(L, K, device=device))


def _schedule(epoch: float, config: LinearConfig) -> float:
    """The rate as a share of its peak, after ``epoch`` epochs."""
    if epoch < config.warmup_epochs:
        return epoch / config.warmup_epochs
    return 0.5 * (1 + math.cos(math.pi * (epoch - config.warmup_epochs) / (config.epochs - config.warmup_epochs)))


def _norms(matrix: Tensor, L: int) -> Tensor:
    """The norm of each head's part of a [D, L * K] matrix: [L]."""
    return matrix.square().sum(0).view(L, -1).sum(1).sqrt()
