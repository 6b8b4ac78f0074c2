"""How fast sampling is: each sampler at several numbers of steps, against a plain loop of DDIM with two passes for guidance."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from umd_bench.bench.measurements.compile_time import Compiling, compile_all, compile_remarks, compile_table, nothing_kept
from umd_bench.bench.plain.model import PlainModel
from umd_bench.bench.plain.sampling import plain_ddim
from umd_bench.bench.tables import Table, number, spread, times
from umd_bench.bench.timing.machine import Machine
from umd_bench.bench.timing.peak import Precision
from umd_bench.bench.timing.rates import Rate, Ratio, Work, measure, ratio
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
class Way:
    """A sampler at so many steps as measured. ``passes`` is how often a sample goes through the model, guidance included."""

    sampler: str
    steps: int
    calls: int
    passes: int
    rate: Rate
    per_pass: Ratio | None  # passes a second over the plain loop's
    compiled: bool = False


@dataclass(frozen=True)
class SampleFinding:
    """Images a second of each way to sample one model."""

    machine: Machine
    subject: str
    batch: int
    cfg_scale: float
    ways: tuple[Way, ...]
    compiling: dict[str, Compiling] = field(default_factory=dict)

    def tables(self) -> list[Table]:
        """A row for each way."""
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
                times(way.per_pass),
            )
            for way in self.ways
        )
        found = [Table(f"Sampling: {self.subject}, batch {self.batch}, guidance {self.cfg_scale:g}", header, rows)]
        return [*found, compile_table(self.compiling)] if self.compiling else found

    def remarks(self) -> list[str]:
        """What the ratios leave out."""
        speed = "Speed alone: which of these loses nothing is what `umd-bench sweep sweeps/sampler.yaml` answers."
        return [speed, *compile_remarks(self.compiling)]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
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
) -> SampleFinding:
    """Measure on initial weights, which cost what trained ones do, with the tier's stage ``generate``.

    Without ``samplers`` every one is measured. ``compiled`` measures the first way so as well: all ways call the model
    alike and share its graph. Raises :class:`UserError` for words that name nothing.
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
    with nothing_kept() if compiled else nullcontext():
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
    compiling = {name: one.weighed(rates[name], rates[one.of]) for name, one in compiling.items()}
    ways = []
    for name, config in configs.items():
        calls = SAMPLERS[config.sampler].calls(config.steps)
        per_pass = None
        if baseline and name != PLAIN:
            per_pass = ratio(rates[name], rates[PLAIN]).scaled(calls / SAMPLERS["ddim"].calls(min(steps)))
        sampler = PLAIN if name == PLAIN else config.sampler
        called = calls * (rows if name == PLAIN else 1)
        ways.append(Way(sampler, config.steps, called, calls * rows, rates[name], per_pass, name in compiling))
    subject = f"width {spec.model.width}, {facts.name} {facts.channels}x{facts.size}x{facts.size}, {precision}"
    return SampleFinding(machine, subject, stage.batch, stage.cfg_scale, tuple(ways), compiling)


def _stage(spec: StageSpec, fields: dict[str, Any]) -> GenerateStage:
    """The spec's stage with those fields that are not None; eta is always theirs, since few samplers take one."""
    given = {name: value for name, value in fields.items() if value is not None or name == "eta"}
    if not isinstance(spec.stage, GenerateStage):
        raise UserError(f"a {spec.kind} stage draws nothing: expected one named generate")
    return GenerateStage.model_validate({**spec.stage.model_dump(), **given})
