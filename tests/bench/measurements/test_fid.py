"""Our Fréchet distance and the textbook formula agree."""

from __future__ import annotations

import json

import pytest
import torch

from umd_bench.bench.measurements.fid import bench_fid
from umd_bench.bench.timing.machine import machine_facts

CPU = torch.device("cpu")
MACHINE = machine_facts(CPU, None, "a processor")
pytestmark = pytest.mark.usefixtures("short_repeats")


def test_both_distances_agree_at_full_and_low_rank() -> None:
    result = bench_fid(machine=MACHINE, widths=(16,), extractors=(), repeats=1, device=CPU)
    full, low = result.pairs
    assert full.difference < 1e-10
    assert low.difference < 1e-2, "the ridge limits how exact scipy's root of a singular product is"
    assert json.loads(json.dumps(result.as_json()))["times"].keys() == {"D = 16, N = 32", "D = 16, N = 4"}
