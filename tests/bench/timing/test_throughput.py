"""Pieces of work (``Work``) are timed in turn; each repeat makes enough calls to be timed reliably.

A ratio compares two pieces of work within each repeat.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
import torch

from umd_bench.bench.tables import format_ratio, spread
from umd_bench.bench.timing.throughput import REPEAT_SECONDS, Throughput, Work, measure, ratio

Clock = list[float]
CPU = torch.device("cpu")


def throughput_of(*each: float) -> Throughput:
    return Throughput(sorted(each)[len(each) // 2], min(each), max(each), len(each), 1, each)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """A clock that advances only while a piece of work runs."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def lasting(clock: Clock, *seconds: float, log: Callable[[], None] = lambda: None) -> Work:
    """Work on eight images per call. Call i lasts ``seconds[i]``; calls beyond the list last as long as its last entry."""
    left = list(seconds)

    def work() -> int:
        clock[0] += left.pop(0) if len(left) > 1 else left[0]
        log()
        return 8

    return work


def test_the_median_and_the_range_leave_out_the_warm_up(clock: Clock) -> None:
    work = lasting(clock, 9, 9, 1, 2, 4)
    assert measure({"work": work}, repeats=3, device=CPU)["work"] == Throughput(4.0, 2.0, 8.0, 3, 1)


def test_a_repeat_of_quick_work_consists_of_many_calls(clock: Clock) -> None:
    rate = measure({"work": lasting(clock, 0.01)}, repeats=2, device=CPU)["work"]
    assert rate.calls * 0.01 == pytest.approx(REPEAT_SECONDS, rel=0.1)
    assert rate.median == pytest.approx(800)


def test_a_slow_first_call_does_not_make_the_repeats_too_short(clock: Clock) -> None:
    rate = measure({"work": lasting(clock, 0.5, 0.01)}, repeats=2, device=CPU, warm_up=False)["work"]
    assert rate.calls * 0.01 == pytest.approx(REPEAT_SECONDS, rel=0.1)


def test_slow_work_is_called_once_per_repeat_and_once_before(clock: Clock) -> None:
    called: list[int] = []
    measure({"work": lasting(clock, 9, log=lambda: called.append(1))}, repeats=2, device=CPU, warm_up=False)
    assert len(called) == 3


def test_one_repeat_has_no_range(clock: Clock) -> None:
    works = {"a": lasting(clock, 1), "b": lasting(clock, 2)}
    once, twice = (measure(works, repeats=repeats, device=CPU, threads=2) for repeats in (1, 2))
    assert (spread(once["a"]), format_ratio(ratio(once["a"], once["b"]))) == ("8.00", "2.00x")
    assert spread(twice["a"]) == "8.00 (8.00 to 8.00)"


def test_pieces_of_work_are_timed_in_turn(clock: Clock) -> None:
    order: list[str] = []
    works = {name: lasting(clock, 1, log=lambda name=name: order.append(name)) for name in ("a", "b")}  # type: ignore[misc]
    measure(works, repeats=3, device=CPU)
    assert order[-6:] == ["a", "b"] * 3


def test_on_one_thread_a_ratio_by_cpu_time_leaves_out_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("umd_bench.bench.timing.throughput.REPEAT_SECONDS", 0.02)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)

    def computing() -> int:
        sum(range(200_000))
        return 1

    def waiting_for_the_core() -> int:
        time.sleep(0.05)  # as if another program had the core
        return computing()

    rates = measure({"ours": computing, "theirs": waiting_for_the_core}, repeats=3, device=CPU)
    speedup = ratio(rates["ours"], rates["theirs"])
    assert speedup.computed is not None
    assert speedup.computed < speedup.median / 2
    assert speedup.scaled(2).computed == pytest.approx(2 * speedup.computed)
    assert "by CPU time" in format_ratio(speedup)


def test_on_several_threads_there_is_no_ratio_by_cpu_time(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    rates = measure({"a": lasting(clock, 1), "b": lasting(clock, 2)}, repeats=1, device=CPU)
    assert ratio(rates["a"], rates["b"]).computed is None
    assert "CPU" not in format_ratio(ratio(rates["a"], rates["b"]))


def test_a_ratio_is_taken_within_each_repeat_so_that_a_slow_period_cancels() -> None:
    speedup = ratio(throughput_of(20, 2, 30), throughput_of(10, 1, 10))
    assert (speedup.median, speedup.smallest, speedup.largest) == (2, 2, 3)
