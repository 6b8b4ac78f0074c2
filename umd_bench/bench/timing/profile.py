"""How much of the time of a piece of work each kind of operation takes, from torch.profiler."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from umd_bench.bench.timing.throughput import Work

_CALLS = 2
_OTHER = "pointwise and the rest"
# (kind of operation, pattern of its names). The first pattern that matches the operation or one of its callers decides.
_KINDS: tuple[tuple[str, str], ...] = (
    ("optimiser", r"^Optimizer\.step|_fused_adamw"),
    ("average of the weights", r"_foreach_lerp"),
    ("clipping", r"clip_grad_norm|_foreach_norm|linalg_vector_norm"),
    ("attention", r"scaled_dot_product|attention|softmax|\bbmm|baddbmm"),
    ("matrix products", r"::(addmm|mm|linear|matmul|convolution|_?conv\w*|mkldnn_\w*linear\w*)\b|conv|gemm|addmm"),
    ("GELU and SiLU", r"gelu|silu"),
    ("layer norm", r"layer_norm|native_batch_norm"),
    ("copies and casts", r"::(copy_|_to_copy|to|contiguous|clone|cat|gather|scatter\w*|index\w*)$"),
    ("random numbers", r"::(rand|randn|normal_|uniform_)"),
)
_PATTERNS = tuple((name, re.compile(pattern)) for name, pattern in _KINDS)


@dataclass(frozen=True)
class Share:
    """A kind of operation: its share of the time, its milliseconds per call of the work, and its costliest operation."""

    name: str
    share: float  # in [0, 1]
    milliseconds: float
    most: str  # the costliest operation


def shares(work: Work, device: torch.device) -> list[Share]:
    """Profile two calls of ``work``, and return the kinds of operation in them, the costliest kind first.

    On a GPU the time of an operation is the time of its kernels; on a CPU it is the time of the calling thread.
    """
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled:
        for _ in range(_CALLS):
            work()
        if on_gpu:
            torch.cuda.synchronize(device)
    spent: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for event in profiled.events() or ():
        spent[kind_of(_names(event))][event.name] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total = sum(sum(names.values()) for names in spent.values()) or 1.0
    kinds = [
        Share(kind, sum(names.values()) / total, sum(names.values()) / 1e3 / _CALLS, max(names, key=names.__getitem__))
        for kind, names in spent.items()
    ]
    return sorted(kinds, key=lambda kind: -kind.share)


def kind_of(names: Iterator[str]) -> str:
    """The kind of an operation, from its own name and its callers' names, innermost first."""
    listed = list(names)
    # The outer loop is over kinds, so that a product inside attention counts as attention, and any operation inside the
    # optimiser as optimiser.
    for kind, pattern in _PATTERNS:
        if any(pattern.search(name) for name in listed):
            return kind
    return _OTHER


def _names(event: FunctionEvent) -> Iterator[str]:
    """The names of an operation and of its callers, innermost first."""
    at: FunctionEvent | None = event
    while at is not None:
        yield at.name
        at = at.cpu_parent
