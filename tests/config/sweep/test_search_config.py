"""Search configurations: one clear sentence for each mistake, and values that are readable and in range."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from umd_bench.config.sweep.search import Dimension, SearchConfig


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"low": 1}, "is missing: expected low and high, or choices"),
        ({"low": 1, "high": 1}, "expected more than low = 1"),
        ({"low": 0, "high": 1, "log": True}, "expected more than 0, since log is true"),
        ({"low": 1, "high": 2, "log": True, "step": 0.1}, "expected log or step"),
        ({"low": 1, "high": 2.5, "int": True}, "expected whole numbers"),
        ({"choices": ["a", "a"]}, "two or more different"),
        ({"choices": ["a"]}, "two or more different"),
        ({"choices": ["a", "b"], "low": 1}, "expected a range or choices, not both"),
    ],
)
def test_an_inconsistent_dimension_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Dimension.model_validate(fields)


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), share=st.floats(0, 1))
def test_a_plain_value_is_in_range_and_close_to_the_suggestion(low: float, width: float, share: float) -> None:
    dimension = Dimension(low=low, high=low + width)
    value = min(low + share * width, low + width)
    plain = dimension.plain(value)
    assert isinstance(plain, float)
    assert low <= plain <= low + width
    assert abs(plain - value) <= 1.1e-3 * width


def test_choices_and_whole_numbers_keep_their_types() -> None:
    assert [type(Dimension(choices=(1, True, "a", None, 0.5)).plain(v)) for v in (1, True, "a", None)] == [
        int,
        bool,
        str,
        type(None),
    ]
    assert isinstance(Dimension(low=1, high=5, int=True).plain(3.0), int)
    assert Dimension(low=0.1, high=0.9).first == 0.1


def test_a_search_is_equal_after_writing_and_reading() -> None:
    search = SearchConfig.model_validate(
        {
            "trials": 3,
            "space": {"noise.schedule": {"choices": ["linear", "cosine"]}, "model.width": {"low": 16, "high": 64, "int": True}},
            "objectives": {"probe.acc_10shot": "maximise"},
        }
    )
    assert SearchConfig.model_validate(search.model_dump(mode="json")) == search


def test_a_population_must_be_less_than_the_trials() -> None:
    with pytest.raises(ValidationError, match="only one random generation"):
        SearchConfig.model_validate(
            {"sampler": "nsga2", "trials": 10, "space": {"a.b": {"low": 0, "high": 1}}, "objectives": {"p.a": "maximise"}}
        )
