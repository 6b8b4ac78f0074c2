"""Our probes and the independent implementations agree."""

from __future__ import annotations

import pytest
import torch

from umd_bench.bench.measurements import probe
from umd_bench.bench.measurements.probe import bench_probe
from umd_bench.bench.timing.machine import machine_facts

CPU = torch.device("cpu")
MACHINE = machine_facts(CPU, None, "a processor")
pytestmark = pytest.mark.usefixtures("short_repeats")


def test_both_implementations_of_each_probe_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "RIDGES", (1.0, 100.0))
    result = bench_probe(machine=MACHINE, width=16, images=1024, repeats=1, device=CPU)
    assert [pair.difference < 1e-4 for pair in result.pairs] == [True] * 4
    assert result.tables()[0].rows[0][0].startswith("ridge, 2 penalties")
