"""How costs grow with the batch, the model's width, the tokens, the stages of a sweep and the trials of a sweep.

The exponent of a cost is the least-squares slope of log(seconds) over log(size). It is 1 for a cost that grows linearly, and no
cost should grow faster.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from umd_bench.bench.measurements.train import manifest_of, train_spec
from umd_bench.bench.measurements.train_steps import engine_step
from umd_bench.bench.tables import Table, number
from umd_bench.bench.timing.machine import Machine
from umd_bench.bench.timing.throughput import measure
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.engine.networks.flops import flops_per_image

MAX_EXPONENT = 1.15  # 1 and a margin for noise; a cost with a larger last_exponent counts as worse than linear


@dataclass(frozen=True)
class Growth:
    """The median seconds of one cost at several sizes. A training step whose FLOPs per image change has its ``flops`` too."""

    what: str
    axis: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    flops: tuple[float, ...] = ()

    @property
    def exponent(self) -> float:
        """The exponent over the FLOPs if they are known, otherwise over the sizes."""
        return exponent(self.flops or self.sizes, self.seconds)

    @property
    def last_exponent(self) -> float:
        """The exponent between the two largest sizes, where constant costs matter least."""
        return exponent((self.flops or self.sizes)[-2:], self.seconds[-2:])


def exponent(sizes: Iterable[float], seconds: Iterable[float]) -> float:
    """The least-squares slope of log(seconds) over log(sizes). Raises :class:`ValueError` unless two sizes differ."""
    x, y = [math.log(size) for size in sizes], [math.log(value) for value in seconds]
    if len(set(x)) < 2:
        raise ValueError("a slope needs at least two different sizes")
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)


@dataclass(frozen=True)
class ScaleResult:
    """The growth of every cost."""

    machine: Machine
    growths: tuple[Growth, ...]

    def tables(self) -> list[Table]:
        """One row per cost."""
        header = ("what", "over", "sizes", "ms", "exponent", "of the last two")
        rows = tuple(
            (
                growth.what,
                f"FLOPs of {growth.axis}" if growth.flops else growth.axis,
                ", ".join(f"{size:,}" for size in growth.sizes),
                ", ".join(number(1e3 * value) for value in growth.seconds),
                f"{growth.exponent:.2f}",
                f"{growth.last_exponent:.2f}",
            )
            for growth in self.growths
        )
        return [Table("Growth of costs", header, rows)]

    def remarks(self) -> list[str]:
        """The costs that grow faster than linearly."""
        worse = [
            f"{growth.what} ({growth.last_exponent:.2f})" for growth in self.growths if growth.last_exponent > MAX_EXPONENT
        ]
        return [f"Faster than linear: {', '.join(worse)}."] if worse else ["Nothing grows faster than linearly."]

    def as_json(self) -> dict[str, Any]:
        """All numbers and exponents as plain values."""
        exponents = [{"exponent": growth.exponent, "last": growth.last_exponent} for growth in self.growths]
        return {**asdict(self), "exponents": exponents}


def training_growths(
    *,
    repeats: int,
    device: torch.device,
    progress: Callable[[str], None],
    batches: tuple[int, ...] = (8, 32, 128),
    widths: tuple[int, ...] = (64, 128, 256),
    tokens: tuple[int, ...] = (64, 256),
) -> list[Growth]:
    """The growth of the training step of the tier digits with the batch, the width and the tokens.

    The growth with width and with tokens is measured over the step's FLOPs.
    """
    return [
        _growth("training step", "the batch", batches, lambda n: (n, []), repeats, device, progress),
        _growth("training step", "the width", widths, lambda n: (32, [f"model.width={n}"]), repeats, device, progress),
        _growth(
            "training step",
            "the tokens",
            tokens,
            lambda n: (8, [f"model.patch={32 // math.isqrt(n)}", "data.name=fashion_mnist"]),
            repeats,
            device,
            progress,
        ),
    ]


def _growth(
    cost: str,
    axis: str,
    sizes: tuple[int, ...],
    change: Callable[[int], tuple[int, list[str]]],
    repeats: int,
    device: torch.device,
    progress: Callable[[str], None],
) -> Growth:
    works, flops = {}, []
    for size in sizes:
        batch, sets = change(size)
        spec = train_spec(
            method="umd", tier="digits", model=None, size=None, stage="pretrain", batch=batch, device=device, sets=sets
        )
        facts, stage = manifest_of(spec), spec.stage
        assert isinstance(stage, TrainStage)
        works[f"{size:,}"] = engine_step(spec, "fp32", facts, device)
        flops.append(batch * flops_per_image(spec.model, stage, size=facts.size, channels=facts.channels, classes=0))
    rates = measure(works, repeats=repeats, device=device, progress=lambda text: progress(f"{axis}: {text}"))
    seconds = tuple(change(size)[0] / rates[f"{size:,}"].median for size in sizes)
    return Growth(cost, axis, sizes, seconds, () if axis == "the batch" else tuple(flops))


def counted_growth(
    cost: str,
    axis: str,
    sizes: tuple[int, ...],
    prepare: Callable[[int], Callable[[], object]],
    *,
    repeats: int,
    progress: Callable[[str], None],
) -> Growth:
    """The growth of ``cost`` on the CPU. ``prepare(size)`` makes ``size`` trials or files and returns the function to time."""
    works = {}
    for size in sizes:
        progress(f"{cost}: preparing {size:,}")
        work = prepare(size)
        works[f"{size:,}"] = lambda work=work: (work(), 1)[1]
    rates = measure(works, repeats=repeats, device=torch.device("cpu"), warm_up=False, progress=progress)
    return Growth(cost, axis, sizes, tuple(1 / rates[f"{size:,}"].median for size in sizes))
