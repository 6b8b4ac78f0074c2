"""How fast the training step is in each precision, compared with the peak of matrix products and the plain eager fp32 step.

Steps and products are timed in turn in one process, the steps on one fixed batch, so every claim is a ratio within one run.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from pydantic import ValidationError

from umd_bench.bench.measurements.compile_time import (
    Compiling,
    compile_all,
    compile_remarks,
    compile_table,
    empty_compile_cache,
)
from umd_bench.bench.measurements.train_steps import engine_step, plain_step
from umd_bench.bench.tables import Table, format_ratio, number, spread
from umd_bench.bench.timing.machine import Machine
from umd_bench.bench.timing.matmul_peak import PRECISIONS, Precision, matrix_product
from umd_bench.bench.timing.peak_memory import peak_memory
from umd_bench.bench.timing.profile import Share, shares
from umd_bench.bench.timing.throughput import Ratio, Throughput, Work, measure, ratio
from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.sweep.resolve import load_trial
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.config.trial.train_stage import TrainStage
from umd_bench.config.trial.trial import Resources
from umd_bench.data.datasets import data_facts
from umd_bench.data.packs.manifest import Manifest
from umd_bench.engine.networks.flops import flops_per_image

_PLAIN, _PLAIN_TF32 = "plain eager fp32", "plain eager TF32"
_STEPS = 1_000_000  # length of the measured stage; its end is never reached


@dataclass(frozen=True)
class TrainResult:
    """``steps`` holds images per second by variant, the baselines included; ``peaks`` holds FLOP/s by precision.

    ``memory`` holds the peak memory in bytes by variant. It is None if it cannot be measured, and for a compiled step, because
    the compiler in the same process takes more memory than the step.
    """

    machine: Machine
    subject: str
    batch: int
    flops_per_image: float
    peaks: dict[Precision, Throughput]
    steps: dict[str, Throughput]
    precisions: dict[str, Precision]
    memory: dict[str, int | None]
    profiles: dict[str, list[Share]]
    compiling: dict[str, Compiling] = field(default_factory=dict)

    def utilisation(self, variant: str) -> Ratio:
        """The model's FLOP/s divided by the FLOP/s of the matrix product in the same precision, repeat by repeat; in [0, 1]."""
        return ratio(self.steps[variant], self.peaks[self.precisions[variant]]).scaled(self.flops_per_image)

    def gain(self, variant: str) -> Ratio | None:
        """The variant's speed over the plain step's; None for the plain step itself, and if the plain step was not timed."""
        return ratio(self.steps[variant], self.steps[_PLAIN]) if _PLAIN in self.steps and variant != _PLAIN else None

    def tables(self) -> list[Table]:
        """Tables of the steps, of the peaks, of compiling, and of how much time each kind of operation takes in a step."""
        header = ("step", "images/s (range)", "times the plain step", "of the peak", "peak memory, MiB")
        rows = []
        for name, rate in self.steps.items():
            used, memory = self.utilisation(name), self.memory[name]
            share = f"{used.median:.0%} ({used.smallest:.0%} to {used.largest:.0%})"
            mebibytes = None if memory is None else memory / 2**20
            rows.append((name, spread(rate), format_ratio(self.gain(name)), share, number(mebibytes)))
        peaks = tuple((name, spread(_giga(rate))) for name, rate in self.peaks.items())
        title = f"Training: {self.subject}, batch {self.batch}, {number(self.flops_per_image / 1e9)} GFLOP an image"
        tables = [Table(title, header, tuple(rows)), Table("Matrix product", ("precision", "GFLOP/s (range)"), peaks)]
        if self.compiling:
            tables.append(compile_table(self.compiling))
        for name, parts in self.profiles.items():
            shown = tuple((part.name, f"{part.share:.1%}", number(part.milliseconds), part.most) for part in parts)
            tables.append(Table(f"Where the time of a step goes: {name}", ("part", "share", "ms", "largest operation"), shown))
        return tables

    def remarks(self) -> list[str]:
        """The fastest step, its share of the peak, and whether compiling pays."""
        own = {name: rate for name, rate in self.steps.items() if name not in (_PLAIN, _PLAIN_TF32)}
        # By CPU time if it is known, so that the choice does not depend on other programs.
        best = max(own, key=lambda name: statistics.median(own[name].computed or own[name].each))
        sentence = f"{best} is the fastest and reaches {self.utilisation(best).median:.0%} of the peak of its precision"
        gain = self.gain(best)
        first = f"{sentence}; it is {format_ratio(gain)} as fast as the plain eager fp32 step." if gain else f"{sentence}."
        return [first, *compile_remarks(self.compiling)]

    def as_json(self) -> dict[str, Any]:
        """All numbers and ratios as plain values."""
        gains = {name: self.gain(name) for name in self.steps}
        return {
            **asdict(self),
            "utilisation": {name: asdict(self.utilisation(name)) for name in self.steps},
            "times_plain": {name: asdict(gain) for name, gain in gains.items() if gain is not None},
        }


def train_spec(
    *,
    method: str,
    tier: str | None,
    model: str | None,
    size: int | None,
    stage: str,
    batch: int | None,
    device: torch.device,
    sets: list[str] | None = None,
) -> StageSpec:
    """The training stage to measure: the tier's stage or, without a tier, the named model with the recipe of imagenet64.

    A fine-tuning stage starts from initial weights, since the cost of a step does not depend on them. ``batch`` defaults to the
    tier's or, without a tier, to 16 on a CPU and 256 on a GPU. Raises :class:`UserError` for an unknown method, tier, model or
    stage, and :class:`FieldError` for a size that the patch side does not divide.
    """
    if tier is None:
        batch = batch or (256 if device.type == "cuda" else 16)
    model_set = [f"model={model}"] if model is not None else []
    trial = load_trial(method, tier=tier or "imagenet64", sets=[*model_set, *(sets or [])])
    if stage not in trial.specs or not isinstance(trial.specs[stage].stage, TrainStage):
        trained = [name for name, spec in trial.specs.items() if isinstance(spec.stage, TrainStage)]
        raise FieldError("--stage", stage, one_of(trained))
    spec = trial.specs[stage]
    if size is not None:
        spec = spec.model_copy(update={"data": spec.data.model_copy(update={"size": size})})
    facts = data_facts(spec.data)
    if facts.size % spec.model.patch:
        raise FieldError("--size", facts.size, f"expected a multiple of the patch side {spec.model.patch}")
    fields = spec.stage.model_dump()
    batch = batch or fields["batch"]
    fields |= {"batch": batch, "nimg": batch * _STEPS, "snapshots": (), "optim": {**fields["optim"], "warmup_nimg": 0}}
    try:
        measured = TrainStage.model_validate(fields)
    except ValidationError as error:
        raise UserError(f"--batch {batch} is not accepted: {_first_error(error)}") from None
    resources = Resources(threads=torch.get_num_threads(), device="cuda" if device.type == "cuda" else "cpu")
    update = {"stage": measured, "parent_key": None, "parent_nimg": None, "resources": resources}
    return spec.model_copy(update=update)


def bench_train(
    spec: StageSpec,
    *,
    machine: Machine,
    precisions: tuple[Precision, ...] = PRECISIONS,
    compiled: bool = False,
    baseline: bool,
    profile: bool,
    repeats: int,
    device: torch.device,
    progress: Callable[[str], None] = lambda _: None,
) -> TrainResult:
    """Time the steps of ``spec`` (see :func:`train_spec`); with ``compiled`` also the compiled step in each precision."""
    with empty_compile_cache() if compiled else nullcontext():
        return _measured(spec, machine, precisions, compiled, baseline, profile, repeats, device, progress)


def _measured(
    spec: StageSpec,
    machine: Machine,
    precisions: tuple[Precision, ...],
    compiled: bool,
    baseline: bool,
    profile: bool,
    repeats: int,
    device: torch.device,
    progress: Callable[[str], None],
) -> TrainResult:
    assert isinstance(spec.stage, TrainStage)
    facts = manifest_of(spec)
    classes = len(facts.class_names) if spec.stage.labels else 0
    works: dict[str, Work] = {}
    precision_of: dict[str, Precision] = {}
    memory: dict[str, int | None] = {}
    engine_step(_small(spec), precisions[0], facts, device)()  # warm-up, so that no variant's memory includes the libraries'
    for precision in precisions:
        name = f"engine {precision}"
        progress(f"building: {name}")
        works[name], memory[name] = _with_memory(lambda p=precision: engine_step(spec, p, facts, device), device)  # type: ignore[misc]
        precision_of[name] = precision
    compiling: dict[str, Compiling] = {}
    if compiled:
        builds: dict[str, tuple[str, Callable[[], Work]]] = {}
        for precision in precisions:
            name = f"engine {precision}, compiled"
            precision_of[name], memory[name] = precision, None
            builds[name] = f"engine {precision}", partial(engine_step, spec, precision, facts, device, compiled=True)
        made, compiling = compile_all(builds, device, progress)
        works |= made
    if baseline:
        for name in (_PLAIN, _PLAIN_TF32) if device.type == "cuda" else (_PLAIN,):
            progress(f"building: {name}")
            works[name], memory[name] = _with_memory(
                lambda tf32=name == _PLAIN_TF32: plain_step(spec, facts, device, tf32=tf32),  # type: ignore[misc]
                device,
            )
            precision_of[name] = "fp32"
    peaks: dict[str, Work] = {f"peak {p}": matrix_product(p, device) for p in PRECISIONS if p in precision_of.values()}
    rates = measure({**works, **peaks}, repeats=repeats, device=device, progress=progress)
    profiles = {}
    if profile:
        for name, work in works.items():
            progress(f"profile: {name}")
            profiles[name] = shares(work, device)
    return TrainResult(
        machine=machine,
        subject=f"{_name(spec)}, {spec.stage.kind}",
        batch=spec.stage.batch,
        flops_per_image=flops_per_image(spec.model, spec.stage, size=facts.size, channels=facts.channels, classes=classes),
        peaks={p: rates[f"peak {p}"] for p in PRECISIONS if f"peak {p}" in rates},
        steps={name: rates[name] for name in works},
        precisions=precision_of,
        memory=memory,
        profiles=profiles,
        compiling={name: one.with_images(rates[name], rates[one.of]) for name, one in compiling.items()},
    )


def _small(spec: StageSpec) -> StageSpec:
    return spec.model_copy(update={"stage": spec.stage.model_copy(update={"batch": 2})})


def _with_memory(build: Callable[[], Work], device: torch.device) -> tuple[Work, int | None]:
    """A step, and the peak memory of its state and two calls; the first call allocates AdamW's moments."""
    built: list[Work] = []

    def twice() -> None:
        built.append(build())
        built[0]()
        built[0]()

    memory = peak_memory(twice, device)
    gc.collect()
    return built[0], memory


def manifest_of(spec: StageSpec) -> Manifest:
    """A manifest with the shape and classes of the data set, which need not be packed."""
    facts = data_facts(spec.data)
    return Manifest(
        name=facts.name,
        version=1,
        size=facts.size,
        channels=facts.channels,
        counts={},
        shards={},
        class_names=tuple(map(str, range(facts.classes))),
        licence="none",
        sha256={},
        digest="made-up",
    )


def _name(spec: StageSpec) -> str:
    m, facts = spec.model, data_facts(spec.data)
    shape = f"width {m.width}, {m.depth} + {m.decoder_depth} blocks, patch {m.patch}"
    return f"{shape}; {facts.name} {facts.channels}x{facts.size}x{facts.size} ({(facts.size // m.patch) ** 2} tokens)"


def _giga(rate: Throughput) -> Throughput:
    return Throughput(rate.median / 1e9, rate.slowest / 1e9, rate.fastest / 1e9, rate.repeats, rate.calls)


def _first_error(error: ValidationError) -> str:
    """The message of pydantic's first error."""
    return str(error.errors()[0]["msg"]).removeprefix("Value error, ")
