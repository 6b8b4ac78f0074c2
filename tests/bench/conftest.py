"""Fixtures of the benchmarks' tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def short_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    """Repeats of a millisecond, since no test checks a speed."""
    monkeypatch.setattr("umd_bench.bench.timing.throughput.REPEAT_SECONDS", 0.001)
