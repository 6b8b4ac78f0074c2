"""Names of cache files stay the same between versions, so that features and statistics of earlier versions are reused."""

from __future__ import annotations

from umd_bench.evaluation.storage.cache_names import cache_name


def test_a_name_depends_on_the_values_alone() -> None:
    assert cache_name([2, "digest", "digits_cnn", 1]) == "d1d43c2c8a3a9aa0d1bc66561fa275dc"
    assert (
        cache_name({"b": [1, None], "a": "x"}) == cache_name({"a": "x", "b": (1, None)}) == "8ea2c0f31b799f047143f378da67a94e"
    )
    assert cache_name([2, "digest", "digits_cnn", 2]) != cache_name([2, "digest", "digits_cnn", 1])
