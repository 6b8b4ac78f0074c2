"""Numbers of a sweep, made up for each test."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pytest

from analysis.tier_card.numbers import Numbers

Columns = Mapping[tuple[str, str], Mapping[str, Sequence[float]]]
MakeNumbers = Callable[[Columns], Numbers]


@pytest.fixture
def numbers_of() -> MakeNumbers:
    """Numbers from (stage, metric) -> method -> the value of each seed."""

    def make(columns: Columns) -> Numbers:
        values = {key: {m: dict(enumerate(of_seeds)) for m, of_seeds in by.items()} for key, by in columns.items()}
        methods = tuple(dict.fromkeys(method for by in columns.values() for method in by))
        return Numbers(values, methods, tuple(range(max(len(v) for by in columns.values() for v in by.values()))))

    return make
