"""One head of the linear probe with torch's layers, autograd and LARS. It is the baseline of `train_heads`."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from timm.optim.lars import Lars
from torch import Tensor, nn

from umd_bench.config.seeds import derive_seed
from umd_bench.config.trial.probe_stage import LinearConfig
from umd_bench.evaluation.probes.linear_probe import TRUST


def plain_linear(
    x: NDArray[np.float32],
    y: NDArray[np.int64],
    rate: float,
    *,
    classes: int,
    config: LinearConfig,
    seed: int,
    library: bool = True,
) -> Tensor:
    """Weights [K, D] of the head with learning rate ``rate`` (for a batch of 256) after training on features ``x`` [N, D].

    With ``library``, timm's LARS makes the steps; it equals the probe's LARS only if the weight decay is 0. Without
    ``library``, the LARS that is written out below makes them.
    """
    N, D = x.shape
    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    norm, dense = nn.BatchNorm1d(D, eps=1e-6, affine=False), nn.Linear(D, classes)
    initial = np.random.default_rng(derive_seed(seed, "probe/linear/weights")).standard_normal(
        (D, 1, classes), dtype=np.float32
    )
    dense.weight.data.copy_(torch.from_numpy(initial[:, 0].T * np.float32(0.01)))
    dense.bias.data.zero_()
    groups = [{"params": [dense.weight], "always_adapt": True}, {"params": [dense.bias], "always_adapt": False}]
    lars = Lars(groups, lr=1.0, momentum=config.momentum, trust_coeff=TRUST, eps=0.0)
    moments = [torch.zeros_like(p) for p in dense.parameters()]
    B, steps, warmup = config.batch, N // config.batch, config.warmup_epochs
    for epoch in range(config.epochs):
        order = np.random.default_rng(derive_seed(seed, "probe/linear/order", epoch)).permutation(N)
        for step in range(steps):
            rows = torch.from_numpy(order[step * B : (step + 1) * B])
            at = epoch + step / steps
            share = at / warmup if at < warmup else (1 + math.cos(math.pi * (at - warmup) / (config.epochs - warmup))) / 2
            lr = rate * B / 256 * share
            dense.zero_grad()
            torch.autograd.backward(F.cross_entropy(dense(norm(features[rows])), labels[rows]))
            if library:
                for group in lars.param_groups:
                    group["lr"] = lr
                lars.step()
            else:
                _written_out(dense, moments, lr, config)
    return dense.weight.detach()


@torch.no_grad()
def _written_out(dense: nn.Linear, moments: list[Tensor], lr: float, config: LinearConfig) -> None:
    """LARS (You et al., arXiv 1708.03888, algorithm 1) for the weight; the bias is neither adapted nor decayed."""
    for p, moment in zip((dense.weight, dense.bias), moments, strict=True):
        assert p.grad is not None
        update = p.grad.clone()
        if p is dense.weight:
            update += config.weight_decay * p
            update *= TRUST * p.norm() / update.norm()
        moment.mul_(config.momentum).add_(update)
        p -= lr * moment
