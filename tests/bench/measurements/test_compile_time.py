"""Compiling pays once the faster step has saved the time that compiling took. If the step is not faster, it never pays."""

from __future__ import annotations

from umd_bench.bench.measurements.compile_time import Compiling, compile_remarks
from umd_bench.bench.timing.throughput import Throughput


def rate_of(*each: float) -> Throughput:
    return Throughput(sorted(each)[len(each) // 2], min(each), max(each), len(each), 1, each)


def test_compiling_pays_after_the_images_that_save_its_time_or_never() -> None:
    compiling = Compiling("plain", cold=30, kept=6)
    twice = compiling.with_images(rate_of(20), rate_of(10))  # each image saves 0.05 s
    assert (twice.images, twice.images_kept) == (600, 120)
    slower = {"compiled": compiling.with_images(rate_of(9), rate_of(10))}
    assert slower["compiled"].images is None
    assert compile_remarks(slower) == ["compiled: not faster than plain, so compiling never pays."]
    assert "600 images (120 with a filled cache)" in compile_remarks({"compiled": twice})[0]
