"""The benchmark of sampling counts model calls and passes, and times a compiled model too."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch

from umd_bench.bench.measurements.sample import PLAIN, bench_sample
from umd_bench.bench.timing.machine import machine_facts
from umd_bench.config.errors import UserError

CPU = torch.device("cpu")
MACHINE = machine_facts(CPU, None, "a processor")
pytestmark = pytest.mark.usefixtures("short_repeats")


def test_the_result_counts_the_passes_of_a_sample_through_the_model() -> None:
    result = bench_sample(
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
    assert {way.sampler: (way.calls, way.passes) for way in result.ways} == {"heun": (5, 10), "euler": (3, 6), PLAIN: (6, 6)}
    assert all((way.per_pass is None) == (way.sampler == PLAIN) for way in result.ways)
    assert json.loads(json.dumps(result.as_json()))["ways"][0]["rate"]["repeats"] == 1
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


@pytest.mark.slow
def test_the_first_sampler_is_also_timed_with_a_compiled_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # everything but the minutes of compiling
    result = bench_sample(
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
    assert [(way.sampler, way.compiled) for way in result.ways] == [("ddim", False), ("euler", False), ("ddim", True)]
    assert result.compiling["ddim, 2 steps, compiled"].of == "ddim, 2 steps"
    assert [table.title for table in result.tables()][1:] == ["Compiling"]
    assert len(result.remarks()) == 2
