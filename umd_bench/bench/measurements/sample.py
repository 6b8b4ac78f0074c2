"""How fast each sampler is at several numbers of steps, compared with a plain DDIM loop that calls the model twice per step."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from umd_bench.bench.measurements.compile_time import (
    Compiling,
    compile_all,
    compile_remarks,
    compile_table,
    empty_compile_cache,
)
from umd_bench.bench.plain.model import PlainModel
from umd_bench.bench.plain.sampling import plain_ddim
from umd_bench.bench.tables import Table, format_ratio, number, spread
from umd_bench.bench.timing.machine import Machine
from umd_bench.bench.timing.matmul_peak import Precision
from umd_bench.bench.timing.throughput import Ratio, Throughput, Work, measure, ratio
from umd_bench.config.errors import FieldError, UserError, one_of
from umd_bench.config.sweep.resolve import load_trial
from umd_bench.config.trial.generate_stage import GenerateStage, check_sampler
from umd_bench.config.trial.stage_spec import StageSpec
from umd_bench.data.datasets import data_facts
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.networks.auto_encoder import AutoEncoder
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.samplers import SAMPLERS, generate, sample_noise
from umd_bench.engine.training.compiling import compile_model

PLAIN = "plain loop, ddim eta 0"


@dataclass(frozen=True)
class TimedSampler:
    """A sampler with a number of steps, timed.

    ``calls`` is the number of model calls per batch. ``passes`` is how often each sample passes through the model, including
    the passes for guidance.
    """

    sampler: str
    steps: int
    calls: int
    passes: int
    rate: Throughput
    per_pass: Ratio | None  # passes per second, divided by the passes per second of the plain loop
    compiled: bool = False


@dataclass(frozen=True)
class SampleResult:
    """Images per second of each sampler and number of steps, for one model."""

    machine: Machine
    subject: str
    batch: int
    cfg_scale: float
    ways: tuple[TimedSampler, ...]
    compiling: dict[str, Compiling] = field(default_factory=dict)

    def tables(self) -> list[Table]:
        """One row per sampler and number of steps."""
        header = (
            "sampler",
            "steps",
            "model calls",
            "passes a sample",
            "images/s (range)",
            "s an image",
            "passes/s, times plain",
        )
        rows = tuple(
            (
                f"{way.sampler}, compiled" if way.compiled else way.sampler,
                str(way.steps),
                str(way.calls),
                str(way.passes),
                spread(way.rate),
                number(1 / way.rate.median),
                format_ratio(way.per_pass),
            )
            for way in self.ways
        )
        tables = [Table(f"Sampling: {self.subject}, batch {self.batch}, guidance {self.cfg_scale:g}", header, rows)]
        return [*tables, compile_table(self.compiling)] if self.compiling else tables

    def remarks(self) -> list[str]:
        """A note that speed is not quality, and whether compiling pays."""
        speed = "This is speed only; `umd-bench sweep sweeps/sampler.yaml` compares the quality of the samples."
        return [speed, *compile_remarks(self.compiling)]

    def as_json(self) -> dict[str, Any]:
        """All numbers as plain values."""
        return asdict(self)


def bench_sample(
    *,
    tier: str,
    model: str | None,
    samplers: list[str],
    steps: list[int],
    batch: int | None,
    cfg_scale: float | None,
    precision: Precision = "fp32",
    compiled: bool = False,
    baseline: bool,
    machine: Machine,
    repeats: int,
    device: torch.device,
    progress: Callable[[str], None] = lambda _: None,
) -> SampleResult:
    """Time the tier's stage ``generate`` with initial weights; trained weights would take the same time.

    Without ``samplers`` every sampler is timed. With ``compiled`` the first sampler is also timed with a compiled model. It
    represents all samplers, since they call the model in the same way.

    Raises :class:`UserError` for an unknown tier, model or sampler.
    """
    for name in samplers:
        if name not in SAMPLERS:
            raise FieldError("--sampler", name, one_of(SAMPLERS))
    spec = load_trial("umd", tier=tier, sets=[f"model={model}"] if model is not None else []).specs["generate"]
    facts, process = data_facts(spec.data), NoiseProcess(spec.noise, device)
    common = {"batch": batch, "cfg_scale": cfg_scale, "precision": precision}
    stage = _stage(spec, common)
    shape = {"size": facts.size, "channels": facts.channels, "classes": facts.classes}
    weights = build_model(spec.model, **shape, seed=0, device=device).eval()
    label = (torch.arange(stage.batch) % facts.classes).to(device)

    def ours(config: GenerateStage, model: AutoEncoder = weights) -> Work:
        def draw() -> int:
            return len(generate(model, process, config, label=label, indices=range(stage.batch), seed=0))

        return draw

    works: dict[str, Work] = {}
    configs = {}
    for sampler in samplers or list(SAMPLERS):
        for count in steps:
            config = _stage(spec, {**common, "sampler": sampler, "steps": count, "eta": None})
            check_sampler(config, process, guidable=True, path="stages.generate")
            name = f"{sampler}, {count} steps"
            works[name], configs[name] = ours(config), config
    rows = 1 if stage.cfg_scale == 1 else 2
    if baseline:
        plain = PlainModel(spec.model, **shape).to(device)
        plain.load_state_dict(weights.state_dict())
        config = _stage(spec, {**common, "precision": "fp32", "sampler": "ddim", "steps": min(steps), "eta": 0.0})

        def loop() -> int:
            start = next(sample_noise(0, range(stage.batch), (facts.channels, facts.size, facts.size), device))
            return len(plain_ddim(plain, process, config, start, label)[0])

        works[PLAIN], configs[PLAIN] = loop, config
    compiling: dict[str, Compiling] = {}
    with empty_compile_cache() if compiled else nullcontext():
        if compiled:
            first = next(iter(works))

            def build() -> Work:
                other = deepcopy(weights)
                compile_model(other, device)
                return ours(configs[first], other)

            made, compiling = compile_all({f"{first}, compiled": (first, build)}, device, progress)
            works |= made
            configs |= dict.fromkeys(made, configs[first])
        rates = measure(works, repeats=repeats, device=device, progress=progress)
    compiling = {name: one.with_images(rates[name], rates[one.of]) for name, one in compiling.items()}
    ways = []
    for name, config in configs.items():
        calls = SAMPLERS[config.sampler].calls(config.steps)
        per_pass = None
        if baseline and name != PLAIN:
            per_pass = ratio(rates[name], rates[PLAIN]).scaled(calls / SAMPLERS["ddim"].calls(min(steps)))
        sampler = PLAIN if name == PLAIN else config.sampler
        called = calls * (rows if name == PLAIN else 1)
        ways.append(TimedSampler(sampler, config.steps, called, calls * rows, rates[name], per_pass, name in compiling))
    subject = f"width {spec.model.width}, {facts.name} {facts.channels}x{facts.size}x{facts.size}, {precision}"
    return SampleResult(machine, subject, stage.batch, stage.cfg_scale, tuple(ways), compiling)


def _stage(spec: StageSpec, fields: dict[str, Any]) -> GenerateStage:
    """The spec's stage with the given fields. None leaves a field as it is, but ``eta`` becomes None."""
    given = {name: value for name, value in fields.items() if value is not None or name == "eta"}
    if not isinstance(spec.stage, GenerateStage):
        raise UserError(f"expected a stage that generates samples, found one of kind {spec.kind}")
    return GenerateStage.model_validate({**spec.stage.model_dump(), **given})
