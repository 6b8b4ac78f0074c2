"""The optimiser of the UMD paper: clipping to a global norm, AdamW, warm-up and cosine decay of the learning rate."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from umd_bench.config.trial.train_stage import OptimConfig, TrainStage

_UNDECAYED = ("cls_token", "mask_token")
_PART = 1 << 18  # parameters updated together on a CPU; fastest of 2^14, 2^16 and 2^18 (docs/performance-notebook.md)


def learning_rate(nimg: int, stage: TrainStage) -> float:
    """The learning rate of the step after ``nimg`` images: linear from 0 in the warm-up, then cosine to 0 at the end."""
    warmup = stage.optim.warmup_nimg
    if nimg < warmup:
        return stage.lr_peak * nimg / warmup
    progress = (nimg - warmup) / max(1, stage.nimg - warmup)
    return stage.lr_peak * 0.5 * (1 + math.cos(math.pi * progress))


def is_decayed(name: str) -> bool:
    """Whether weight decay applies to a parameter: to all but class tokens, mask token and biases."""
    return name not in _UNDECAYED and not name.endswith(".bias")


def build_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over two groups, with and without decay; :func:`set_learning_rate` sets the rate before each step."""
    named = list(model.named_parameters())
    groups: list[dict[str, Any]] = [
        {"params": [p for name, p in named if is_decayed(name)], "weight_decay": config.weight_decay},
        {"params": [p for name, p in named if not is_decayed(name)], "weight_decay": 0.0},
    ]
    return adamw(groups, config)


def adamw(groups: list[dict[str, Any]], config: OptimConfig) -> torch.optim.Optimizer:
    """AdamW over groups with ``params`` and ``weight_decay``; the learning rate starts at 0."""
    betas = (config.beta1, config.beta2)
    if config.first_moment == "bf16":
        return AdamWBf16(groups, betas=betas, eps=config.eps)
    return torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=config.eps, fused=True)


class AdamWBf16(torch.optim.Optimizer):
    """AdamW with the first moment stored in bf16, as in the official implementation (optax, ``mu_dtype=bfloat16``).

    ``m = bf16(bf16(b1) m) + (1 - b1) g``; ``v = b2 v + (1 - b2) g^2``;
    ``p -= lr (m / (1 - b1^k) / (sqrt(v / (1 - b2^k)) + eps) + decay p)``; then m is rounded to bf16.
    The moment decays by the *rounded* b1 (0.8984375 for 0.9) and is rounded before the gradient is added, because optax
    multiplies in the moment's own precision.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": 0.0, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter with a gradient."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            for p in params:
                if not self.state[p]:
                    self.state[p]["step"] = torch.tensor(0.0)
                    self.state[p]["exp_avg"] = torch.zeros_like(p, dtype=torch.bfloat16)
                    self.state[p]["exp_avg_sq"] = torch.zeros_like(p)
                self.state[p]["step"] += 1
            (b1, b2), k = group["betas"], self.state[params[0]]["step"].item()  # equal for all parameters
            for weights, grads, moments, variances in self._parts(params):
                torch._foreach_mul_(moments, torch.tensor(b1, dtype=torch.bfloat16).item())
                m = torch._foreach_add([moment.float() for moment in moments], grads, alpha=1 - b1)
                torch._foreach_copy_(moments, m)
                torch._foreach_mul_(variances, b2)
                torch._foreach_addcmul_(variances, grads, grads, 1 - b2)

                torch._foreach_div_(m, 1 - b1**k)
                denominator = torch._foreach_div(variances, 1 - b2**k)
                torch._foreach_sqrt_(denominator)
                torch._foreach_add_(denominator, group["eps"])
                torch._foreach_div_(m, denominator)
                torch._foreach_add_(m, weights, alpha=group["weight_decay"])
                torch._foreach_add_(weights, m, alpha=-group["lr"])

    def _parts(self, params: list[Tensor]) -> Iterator[tuple[tuple[Tensor, ...], ...]]:
        """Weights, gradients and both moments in the parts that are updated together.

        On a GPU that is one part. On a CPU a part fits into the caches: an update is a dozen operations, and over all
        parameters at once each operation would read everything from memory.
        """
        states, grads = [self.state[p] for p in params], [p.grad for p in params if p.grad is not None]
        whole = [(p.detach(), g, s["exp_avg"], s["exp_avg_sq"]) for p, g, s in zip(params, grads, states, strict=True)]
        if params[0].device.type != "cpu":
            yield tuple(zip(*whole, strict=True))
            return
        held: list[tuple[Tensor, ...]] = []
        for weights, grad, m, v in whole:
            for part in zip(*(x.view(-1).split(_PART) for x in (weights, grad.contiguous(), m, v)), strict=True):
                if held and sum(len(numbers) for numbers, *_ in held) + len(part[0]) > _PART:
                    yield tuple(zip(*held, strict=True))
                    held = []
                held.append(part)
        yield tuple(zip(*held, strict=True))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr


@torch.no_grad()
def clip_grad_norm(model: nn.Module, max_norm: float) -> Tensor:
    """Scale the gradients down to a global norm of ``max_norm`` if theirs is larger (no epsilon); returns their norm before.

    The norm is a scalar on the device, so the host does not wait for it.
    """
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    norm: Tensor = torch.stack(torch._foreach_norm(grads)).norm()
    torch._foreach_mul_(grads, (max_norm / norm).clamp(max=1))
    return norm


def optimizer_tensors(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """The optimiser's state as ``<kind>/<parameter>``: step, exp_avg and exp_avg_sq of each parameter updated so far."""
    named = model.named_parameters()
    return {f"{kind}/{name}": value for name, p in named for kind, value in optimizer.state.get(p, {}).items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of :func:`optimizer_tensors`; a parameter without an entry has no state yet."""
    named = dict(model.named_parameters())
    for key, value in tensors.items():
        kind, name = key.split("/", 1)
        on_host = kind == "step" and isinstance(optimizer, AdamWBf16)  # AdamWBf16 reads the step count on the host
        optimizer.state[named[name]][kind] = value.to("cpu" if on_host else named[name].device)
