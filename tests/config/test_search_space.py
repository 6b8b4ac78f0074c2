"""What a search may say: one clear sentence for each mistake, and values that read well and never leave their range."""

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
        ({"low": 0, "high": 1, "log": True}, "a logarithmic range begins above 0"),
        ({"low": 1, "high": 2, "log": True, "step": 0.1}, "expected log or step"),
        ({"low": 1, "high": 2.5, "int": True}, "expected whole numbers"),
        ({"choices": ["a", "a"]}, "two or more different"),
        ({"choices": ["a"]}, "two or more different"),
        ({"choices": ["a", "b"], "low": 1}, "expected one of the two"),
    ],
)
def test_a_dimension_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Dimension.model_validate(fields)


@given(low=st.floats(-1e6, 1e6), width=st.floats(1e-3, 1e6), share=st.floats(0, 1))
def test_a_plain_value_stays_in_its_range_and_near_what_was_suggested(low: float, width: float, share: float) -> None:
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


def test_a_search_survives_being_written_and_read() -> None:
    search = SearchConfig.model_validate(
        {
            "trials": 3,
            "space": {"noise.schedule": {"choices": ["linear", "cosine"]}, "model.width": {"low": 16, "high": 64, "int": True}},
            "objectives": {"probe.acc_10shot": "maximise"},
        }
    )
    assert SearchConfig.model_validate(search.model_dump(mode="json")) == search


def test_a_generation_must_leave_room_for_a_second() -> None:
    with pytest.raises(ValidationError, match="one random generation"):
        SearchConfig.model_validate(
            {"sampler": "nsga2", "trials": 10, "space": {"a.b": {"low": 0, "high": 1}}, "objectives": {"p.a": "maximise"}}
        )
