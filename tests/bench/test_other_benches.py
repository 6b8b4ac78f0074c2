"""Benchmarks of sampling, distances and probes: both sides compute the same, and every number of a run is there."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from umd_bench.bench.measurements import probe
from umd_bench.bench.measurements.fid import bench_fid
from umd_bench.bench.measurements.probe import bench_probe
from umd_bench.bench.measurements.sample import PLAIN, bench_sample
from umd_bench.bench.plain.model import PlainModel
from umd_bench.bench.plain.sampling import plain_ddim
from umd_bench.bench.timing.comparison import relative
from umd_bench.bench.timing.machine import machine_facts
from umd_bench.config.errors import UserError
from umd_bench.config.trial.generate_stage import GenerateStage
from umd_bench.config.trial.model import ModelConfig
from umd_bench.config.trial.noise import NoiseConfig
from umd_bench.engine.diffusion.noise_process import NoiseProcess
from umd_bench.engine.networks.initialise import build_model
from umd_bench.engine.samplers import generate, sample_noise

CPU = torch.device("cpu")
MACHINE = machine_facts(CPU, None, "a processor")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umd_bench.bench.timing.rates.REPEAT_SECONDS", 0.001)


@pytest.mark.parametrize(("scale", "passes"), [(1.0, 6), (2.5, 12)])
def test_the_plain_loop_draws_the_samples_that_the_sampler_draws(scale: float, passes: int) -> None:
    config = ModelConfig(patch=2, width=32, depth=2, decoder_depth=1, heads=2)
    model = build_model(config, size=8, channels=1, classes=3, seed=0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())), alpha=0.05)
    plain = PlainModel(config, size=8, channels=1, classes=3)
    plain.load_state_dict(model.state_dict())
    stage = GenerateStage(parent="p", n=4, steps=5, eta=0, cfg_scale=scale, extractor="none")
    process, label = NoiseProcess(NoiseConfig()), torch.tensor([0, 1, 2, 0])
    ours = generate(model, process, stage, label=label, indices=range(4), seed=1)
    theirs, calls = plain_ddim(plain, process, stage, next(sample_noise(1, range(4), (1, 8, 8), CPU)), label)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=2e-4)
    assert ours.std() > 0.05
    assert calls == passes


def test_ways_to_sample_count_the_passes_of_a_sample() -> None:
    found = bench_sample(
        tier="digits",
        model=None,
        samplers=["heun", "euler"],
        steps=[2],
        batch=2,
        cfg_scale=None,
        baseline=True,
        machine=MACHINE,
        repeats=1,
        device=CPU,
    )
    assert {way.sampler: (way.calls, way.passes) for way in found.ways} == {"heun": (5, 10), "euler": (3, 6), PLAIN: (6, 6)}
    assert all((way.per_pass is None) == (way.sampler == PLAIN) for way in found.ways)
    assert json.loads(json.dumps(found.as_json()))["ways"][0]["rate"]["repeats"] == 1
    with pytest.raises(UserError, match="--sampler"):
        bench_sample(
            tier="digits",
            model=None,
            samplers=["none"],
            steps=[2],
            batch=2,
            cfg_scale=None,
            baseline=False,
            machine=MACHINE,
            repeats=1,
            device=CPU,
        )


def test_the_first_way_is_sampled_compiled_too_and_its_compiling_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # the whole way, but for the minutes
    found = bench_sample(
        tier="digits",
        model=None,
        samplers=["ddim", "euler"],
        steps=[2],
        batch=2,
        cfg_scale=None,
        compiled=True,
        baseline=False,
        machine=MACHINE,
        repeats=1,
        device=CPU,
    )
    assert [(way.sampler, way.compiled) for way in found.ways] == [("ddim", False), ("euler", False), ("ddim", True)]
    assert found.compiling["ddim, 2 steps, compiled"].of == "ddim, 2 steps"
    assert [table.title for table in found.tables()][1:] == ["Compiling"]
    assert len(found.remarks()) == 2


def test_both_ways_to_a_distance_agree_at_any_rank() -> None:
    found = bench_fid(machine=MACHINE, widths=(16,), extractors=(), repeats=1, device=CPU)
    full, low = found.pairs
    assert full.difference < 1e-10
    assert low.difference < 1e-2, "scipy's root of a singular product is known to the ridge"
    assert json.loads(json.dumps(found.as_json()))["times"].keys() == {"D = 16, N = 32", "D = 16, N = 4"}


def test_both_ways_to_a_probe_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "RIDGES", (1.0, 100.0))
    found = bench_probe(machine=MACHINE, width=16, images=1024, repeats=1, device=CPU)
    assert [pair.difference < 1e-4 for pair in found.pairs] == [True] * 4
    assert found.tables()[0].rows[0][0].startswith("ridge, 2 penalties")


def test_a_difference_is_relative_and_of_one_shape() -> None:
    assert relative([1.0, 2.2], [1.0, 2.0]) == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"\[2\] and \[1\]"):
        relative([1.0, 2.0], [1.0])
