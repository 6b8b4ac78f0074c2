"""Exponents are slopes of log(seconds) over log(size), and the remarks name costs that grow faster than linearly."""

from __future__ import annotations

import json

import pytest
import torch

from umd_bench.bench.measurements.scale import Growth, ScaleResult, counted_growth, exponent, training_growths
from umd_bench.bench.timing.machine import machine_facts

CPU = torch.device("cpu")
MACHINE = machine_facts(CPU, None, "a processor")
pytestmark = pytest.mark.usefixtures("short_repeats")


def result(*seconds: float) -> ScaleResult:
    return ScaleResult(MACHINE, (Growth("a thing", "the trials", (1, 10, 100), seconds),))


def test_the_exponent_of_a_power_law_is_its_power() -> None:
    assert exponent((1, 10, 100), (2, 20, 200)) == pytest.approx(1)
    assert exponent((2, 4, 8), (3, 12, 48)) == pytest.approx(2)
    with pytest.raises(ValueError, match="two different sizes"):
        exponent((3, 3), (1, 2))


def test_the_remarks_name_a_cost_whose_last_exponent_is_above_the_limit() -> None:
    assert result(1, 10, 100).remarks() == ["Nothing grows faster than linearly."]
    growing = result(1, 1, 100)
    assert growing.growths[0].exponent == pytest.approx(1)
    assert "a thing (2.00)" in growing.remarks()[0]
    assert json.loads(json.dumps(growing.as_json()))["exponents"][0]["last"] == pytest.approx(2)


@pytest.mark.slow
def test_width_and_tokens_are_fitted_over_flops_and_other_costs_over_sizes() -> None:
    batch, width, tokens = training_growths(
        repeats=1, device=CPU, progress=lambda _: None, batches=(4, 8), widths=(16, 32), tokens=(4, 16)
    )
    assert batch.flops == ()
    assert width.flops == tuple(sorted(width.flops))
    assert len(tokens.flops) == len(tokens.seconds) == 2
    counted = counted_growth("sum", "things", (1, 2), lambda n: lambda: sum(range(n)), repeats=1, progress=lambda _: None)
    assert (counted.sizes, len(counted.seconds)) == ((1, 2), 2)
